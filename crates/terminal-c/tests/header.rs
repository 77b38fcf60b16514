//! The header in the tree is the one that the source makes.
#![allow(missing_docs)]

use std::{env, fs, path::Path};

#[test]
fn the_header_is_made_from_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/lib.rs"))
        .with_src(root.join("src/answer.rs"))
        .with_src(root.join("src/given.rs"))
        .with_src(root.join("src/status.rs"))
        .generate()
        .unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = root.join("include/palmgate.h");
    if env::var_os("HEADER_WRITE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read(&path).unwrap_or_default();
    assert!(
        kept == made,
        "include/palmgate.h is not what the source makes: run \
         HEADER_WRITE=1 cargo test --release -p palmgate-terminal-c --test header"
    );
}
