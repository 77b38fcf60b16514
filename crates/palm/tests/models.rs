//! Models that are not built in: held to what was reviewed of them.
#![allow(clippy::unwrap_used)]

use palmgate_palm::{Extractor, ModelError, ModelFile, Role, models_hash};

fn files() -> Vec<ModelFile> {
    Role::ALL.map(|role| ModelFile::built_in(role).unwrap()).into()
}

fn refused(change: impl FnOnce(&mut Vec<ModelFile>)) -> ModelError {
    let mut files = files();
    change(&mut files);
    Extractor::load_from(&files).err().unwrap()
}

#[test]
fn the_built_in_models_load_from_files_too_and_have_one_hash() {
    let files = files();
    assert!(files.iter().all(|file| file.operators.iter().any(|name| name == "Conv")));
    assert_eq!(Extractor::load_from(&files).unwrap().models_hash(), models_hash());
    assert_eq!(Extractor::load().unwrap().models_hash(), models_hash());
}

#[test]
fn what_differs_from_what_was_reviewed_is_refused() {
    let error = refused(|files| files[2].bytes[1000] ^= 1);
    assert!(matches!(error, ModelError::Hash(_)), "{error}");
    let error = refused(|files| files[2].operators.retain(|name| name != "Conv"));
    assert!(
        matches!(&error, ModelError::Operator { operator, .. } if operator == "Conv"),
        "{error}"
    );
    let error = refused(|files| files[2].golden[0] *= 1.1);
    assert!(matches!(error, ModelError::Golden { .. }), "{error}");
    let error = refused(|files| files[2].golden.clear());
    assert!(matches!(error, ModelError::Outputs { .. }), "{error}");
}

#[test]
fn there_is_one_model_for_each_part_and_it_is_for_that_part() {
    let error = refused(|files| drop(files.pop()));
    assert!(matches!(error, ModelError::Missing { role: "embedding", found: 0 }), "{error}");
    let error = refused(|files| files.push(ModelFile::built_in(Role::Embedding).unwrap()));
    assert!(matches!(error, ModelError::Missing { role: "embedding", found: 2 }), "{error}");
    // A good model in the place of another.
    let error = refused(|files| {
        files.pop();
        let mut other = ModelFile::built_in(Role::Landmarks).unwrap();
        other.role = Role::Embedding;
        files.push(other);
    });
    assert!(!matches!(error, ModelError::Hash(_) | ModelError::Missing { .. }), "{error}");
}
