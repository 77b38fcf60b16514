//! A directory of models with its registry.
#![allow(clippy::unwrap_used)]

use palmgate_ledger::note::{Algorithm, Signer};
use palmgate_matcher::{Models, ModelsError, register};
use palmgate_palm::{ModelFile, Role, models_hash};
use palmgate_seal::sign::SigningKey;
use palmgate_update::{REGISTRY, Reason, Registered, sign_models, unsigned_registry};
use std::{fs, path::Path};
use tempfile::TempDir;

struct Shelf {
    directory: TempDir,
    keys: [SigningKey; 2],
}

impl Shelf {
    fn new() -> Self {
        let shelf = Self {
            directory: tempfile::tempdir().unwrap(),
            keys: [SigningKey::generate(), SigningKey::generate()],
        };
        shelf.sign(&shelf.built_in());
        shelf
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the built-in models; what a registry says of them.
    fn built_in(&self) -> Vec<Registered> {
        let register = |role: Role| {
            let model = ModelFile::built_in(role).unwrap();
            let file = format!("{}.onnx", role.as_str());
            fs::write(self.path().join(&file), &model.bytes).unwrap();
            register(&model, file)
        };
        Role::ALL.map(register).into()
    }

    fn sign(&self, models: &[Registered]) {
        let text = unsigned_registry(models.to_vec()).unwrap();
        let note = sign_models(&text, None, "martin", &self.keys[0]).unwrap();
        let note = sign_models(&text, Some(&note), "petit", &self.keys[1]).unwrap();
        fs::write(self.path().join(REGISTRY), note).unwrap();
    }

    fn trusted(&self) -> [Signer; 2] {
        let signer =
            |name, key: &SigningKey| Signer::new(name, Algorithm::Ed25519, key.public()).unwrap();
        [signer("martin", &self.keys[0]), signer("petit", &self.keys[1])]
    }

    fn read(&self) -> Result<Models, ModelsError> {
        Models::read(self.path(), &self.trusted())
    }

    fn reason(&self) -> Reason {
        match self.read() {
            Err(ModelsError::Refused(refusal)) => refusal.reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was taken"),
        }
    }
}

#[test]
fn a_signed_registry_gives_models_and_a_strange_one_does_not() {
    let shelf = Shelf::new();
    let models = shelf.read().unwrap();
    assert_eq!(models.hash(), models_hash());
    assert_eq!(models.extractor().unwrap().models_hash(), models_hash());
    let refused = Models::read(shelf.path(), &Shelf::new().trusted()).err().unwrap();
    assert!(matches!(&refused, ModelsError::Refused(one) if one.reason == Reason::Unsigned));
    let text = refused.to_string();
    assert!(text.contains("registry.note: wanted") && text.contains("found"), "{text}");
}

#[test]
fn a_changed_missing_or_huge_file_is_refused() {
    let shelf = Shelf::new();
    let path = shelf.path().join("embedding.onnx");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[1000] ^= 1;
    for bad in [flipped, whole[..whole.len() - 1].to_vec(), Vec::new()] {
        fs::write(&path, bad).unwrap();
        assert_eq!(shelf.reason(), Reason::Tampered);
    }
    fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(shelf.reason(), Reason::TooLarge);
    fs::remove_file(&path).unwrap();
    assert_eq!(shelf.reason(), Reason::Tampered);
    fs::remove_file(shelf.path().join(REGISTRY)).unwrap();
    assert_eq!(shelf.reason(), Reason::Tampered);
}

#[test]
fn a_registry_says_where_each_model_is_from_and_names_plain_files() {
    let shelf = Shelf::new();
    let good = shelf.built_in();
    let changed = |change: fn(&mut Registered)| {
        let mut models = good.clone();
        change(&mut models[2]);
        shelf.sign(&models);
        shelf.read().err().unwrap()
    };
    for change in [
        (|one| one.file = "../embedding.onnx".into()) as fn(&mut Registered),
        |one| one.file = "/etc/passwd".into(),
        |one| one.licence = " ".into(),
        |one| one.origin = String::new(),
        |one| one.size = 1 << 40,
    ] {
        let refused = changed(change);
        assert!(
            matches!(&refused, ModelsError::Refused(one) if one.reason == Reason::Malformed),
            "{refused}"
        );
    }
    let refused = changed(|one| one.role = "detection".into());
    assert!(refused.to_string().contains("found detection, landmarks, detection"), "{refused}");
    let mut two = good.clone();
    two.pop();
    shelf.sign(&two);
    assert!(matches!(shelf.read(), Err(ModelsError::Roles { .. })));
}
