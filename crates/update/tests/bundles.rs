//! Bundles: good ones installed on a root of their own by the real dpkg, and bad ones refused.
#![allow(clippy::unwrap_used)]

use palmgate_ledger::note::{Algorithm, Signer, sign};
use palmgate_protocol::Timestamp;
use palmgate_seal::sign::SigningKey;
use palmgate_update::{
    Bundle, Dpkg, Installed, NOTE, Reason, Refusal, Terms, Version, add_signature, describe,
};
use rustix::fs::FlockOperation;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DAY: i64 = 86_400_000;

struct House {
    directory: TempDir,
    keys: [SigningKey; 2],
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

impl House {
    fn new() -> Self {
        let house = Self {
            directory: tempfile::tempdir().unwrap(),
            keys: [SigningKey::generate(), SigningKey::generate()],
        };
        fs::create_dir_all(house.root().join("var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(house.root().join("var/lib/dpkg/updates")).unwrap();
        fs::write(house.root().join("var/lib/dpkg/status"), "").unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root")
    }

    fn trusted(&self) -> [Signer; 2] {
        let signer =
            |name, key: &SigningKey| Signer::new(name, Algorithm::Ed25519, key.public()).unwrap();
        [signer("martin", &self.keys[0]), signer("petit", &self.keys[1])]
    }

    /// A bundle with models, a pack, and a package where `package` says so.
    fn bundle(&self, at: &str, release: &str, floor: &str, package: bool) -> PathBuf {
        let path = self.path(at);
        fs::create_dir_all(path.join("models")).unwrap();
        fs::create_dir_all(path.join("packs/mine")).unwrap();
        fs::write(path.join("models/net.onnx"), format!("net of {release}")).unwrap();
        fs::write(path.join("packs/mine/pack.toml"), format!("pack of {release}")).unwrap();
        if package {
            self.package(&path, "palmgate", release);
        }
        self.sign(&path, release, floor);
        path
    }

    fn sign(&self, path: &Path, release: &str, floor: &str) {
        let note = describe(path, terms(release, floor), "martin", &self.keys[0]).unwrap();
        let note = add_signature(&note, "petit", &self.keys[1]).unwrap();
        fs::write(path.join(NOTE), note).unwrap();
    }

    fn package(&self, bundle: &Path, name: &str, release: &str) {
        let tree = self.path("tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("usr/share/palmgate")).unwrap();
        fs::write(tree.join("usr/share/palmgate/release"), release).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {release}-1\nArchitecture: all\nMaintainer: Tests \
             <tests@palmgate.invalid>\nDescription: trial\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::create_dir_all(bundle.join("packages")).unwrap();
        let file = bundle.join(format!("packages/{name}_{release}-1_all.deb"));
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "--build"]).args([&tree, &file]);
        assert!(build.output().unwrap().status.success());
    }

    fn installed(&self) -> Installed {
        Installed::at(self.path("installed"))
    }

    fn install(&self, bundle: &Path, program: &str) -> Result<(), Refusal> {
        let installed = self.installed();
        let floor = installed.floor()?;
        let bundle = Bundle::open(bundle, &self.trusted(), NOW, floor.as_ref())?;
        installed.install(&bundle, &version(program), &Dpkg::in_root(self.root()))
    }

    fn open(&self, bundle: &Path) -> Result<Bundle, Refusal> {
        let bundle = Bundle::open(bundle, &self.trusted(), NOW, None)?;
        bundle.verify_files().map(|()| bundle)
    }

    fn refused(&self, bundle: &Path) -> Refusal {
        let refusal = self.open(bundle).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains(": wanted ") && text.contains(", found ") && text.contains("; "));
        refusal
    }

    fn in_use(&self, path: &str) -> String {
        fs::read_to_string(self.path("installed").join(path)).unwrap()
    }

    fn release(&self) -> String {
        fs::read_to_string(self.root().join("usr/share/palmgate/release")).unwrap()
    }

    /// Signs any text as both would.
    fn note(&self, text: &str) -> String {
        let note = sign(text, "martin", &self.keys[0]).unwrap();
        add_signature(&note, "petit", &self.keys[1]).unwrap()
    }
}

fn terms(release: &str, floor: &str) -> Terms {
    Terms {
        version: version(release),
        floor: version(floor),
        issued: NOW,
        expires: Timestamp::from_millis(NOW.as_millis() + 90 * DAY),
    }
}

#[test]
fn a_bundle_brings_programs_models_and_packs_and_raises_the_floor() {
    let house = House::new();
    let first = house.bundle("first", "1.2.0", "1.0.0", true);
    house.install(&first, "1.1.0").unwrap();
    assert_eq!(house.release(), "1.2.0");
    assert_eq!(house.in_use("models/net.onnx"), "net of 1.2.0");
    assert_eq!(house.in_use("packs/mine/pack.toml"), "pack of 1.2.0");
    assert_eq!(house.installed().floor().unwrap(), Some(version("1.0.0")));
    let id = *house.open(&first).unwrap().id();
    assert_eq!(house.installed().bundle().unwrap(), Some(id));

    // The same again changes nothing, and leaves nothing behind.
    house.install(&first, "1.2.0").unwrap();
    assert_eq!(house.in_use("models/net.onnx"), "net of 1.2.0");
    assert_eq!(fs::read_dir(house.path("installed/content")).unwrap().count(), 2);
    assert!(!house.path("installed/staging").exists());

    let second = house.bundle("second", "1.3.0", "1.2.0", true);
    house.install(&second, "1.2.0").unwrap();
    assert_eq!(
        (house.release().as_str(), house.in_use("models/net.onnx").as_str()),
        ("1.3.0", "net of 1.3.0")
    );
    // Back, as long as it is no further than the floor, which stays.
    house.install(&first, "1.3.0").unwrap();
    assert_eq!(house.release(), "1.2.0");
    assert_eq!(house.in_use("models/net.onnx"), "net of 1.2.0");
    assert_eq!(house.installed().floor().unwrap(), Some(version("1.2.0")));
}

#[test]
fn no_bundle_goes_below_the_floor() {
    let house = House::new();
    let old = house.bundle("old", "1.2.0", "1.0.0", true);
    let secure = house.bundle("secure", "1.3.0", "1.3.0", true);
    house.install(&secure, "1.2.0").unwrap();
    let refusal = house.install(&old, "1.3.0").unwrap_err();
    assert_eq!(refusal.reason, Reason::BelowFloor, "{refusal}");
    assert!(refusal.to_string().contains("1.3.0 or above"), "{refusal}");
    assert_eq!(house.release(), "1.3.0");
    // Opened before the floor rose: refused under the lock.
    let opened = Bundle::open(&old, &house.trusted(), NOW, None).unwrap();
    let dpkg = Dpkg::in_root(house.root());
    let refusal = house.installed().install(&opened, &version("1.3.0"), &dpkg).unwrap_err();
    assert_eq!(refusal.reason, Reason::BelowFloor);
    assert!(palmgate_update::check_floor(&version("1.2.9"), &version("1.3.0"), &old).is_err());
    assert!(palmgate_update::check_floor(&version("1.3.0"), &version("1.3.0"), &old).is_ok());
}

#[test]
fn models_alone_are_for_the_version_that_they_name() {
    let house = House::new();
    let both = house.bundle("both", "1.2.0", "1.0.0", true);
    house.install(&both, "1.1.0").unwrap();
    let models = house.path("models-only");
    fs::create_dir_all(models.join("models")).unwrap();
    fs::write(models.join("models/net.onnx"), "better").unwrap();
    house.sign(&models, "1.2.0", "1.0.0");
    let refusal = house.install(&models, "1.1.0").unwrap_err();
    assert_eq!(refusal.reason, Reason::Foreign, "{refusal}");
    house.install(&models, "1.2.0").unwrap();
    assert_eq!(house.in_use("models/net.onnx"), "better");
    assert_eq!(house.in_use("packs/mine/pack.toml"), "pack of 1.2.0", "what is not brought stays");
}

#[test]
fn a_package_of_something_else_or_of_another_version_is_not_installed() {
    let house = House::new();
    for (name, release) in [("other", "1.2.0"), ("palmgate", "1.2.1"), ("palmgate-cloud", "1.2.0")]
    {
        let bundle = house.path(&format!("{name}-{release}"));
        fs::create_dir_all(&bundle).unwrap();
        house.package(&bundle, name, release);
        house.sign(&bundle, "1.2.0", "1.0.0");
        let refusal = house.install(&bundle, "1.1.0").unwrap_err();
        assert_eq!(refusal.reason, Reason::Foreign, "{refusal}");
        assert_eq!(house.installed().floor().unwrap(), None);
    }
    let bundle = house.path("nonsense");
    fs::create_dir_all(bundle.join("packages")).unwrap();
    fs::write(bundle.join("packages/palmgate_1.2.0-1_all.deb"), "no package").unwrap();
    house.sign(&bundle, "1.2.0", "1.0.0");
    assert_eq!(house.install(&bundle, "1.1.0").unwrap_err().reason, Reason::Malformed);
}

#[test]
fn where_dpkg_fails_models_packs_and_floor_stay_and_the_same_call_finishes_it() {
    let house = House::new();
    let first = house.bundle("first", "1.2.0", "1.0.0", true);
    house.install(&first, "1.1.0").unwrap();
    let second = house.bundle("second", "1.3.0", "1.3.0", true);
    // Somebody else has the package database.
    let lock = fs::File::create(house.root().join("var/lib/dpkg/lock")).unwrap();
    rustix::fs::fcntl_lock(&lock, FlockOperation::LockExclusive).unwrap();
    let refusal = house.install(&second, "1.2.0").unwrap_err();
    assert_eq!(refusal.reason, Reason::System, "{refusal}");
    assert_eq!(house.release(), "1.2.0");
    assert_eq!(house.in_use("models/net.onnx"), "net of 1.2.0");
    assert_eq!(house.in_use("packs/mine/pack.toml"), "pack of 1.2.0");
    assert_eq!(house.installed().floor().unwrap(), Some(version("1.0.0")));
    drop(lock);
    house.install(&second, "1.2.0").unwrap();
    assert_eq!(house.in_use("models/net.onnx"), "net of 1.3.0");
    assert_eq!(house.installed().floor().unwrap(), Some(version("1.3.0")));
}

#[test]
fn two_installations_do_not_meet() {
    let house = House::new();
    let bundle = house.bundle("first", "1.2.0", "1.0.0", true);
    fs::create_dir(house.path("installed")).unwrap();
    let lock = fs::File::open(house.path("installed")).unwrap();
    lock.try_lock().unwrap();
    let refusal = house.install(&bundle, "1.1.0").unwrap_err();
    assert!(refusal.to_string().contains("another one under way"), "{refusal}");
    lock.unlock().unwrap();
    house.install(&bundle, "1.1.0").unwrap();
}

#[test]
fn what_a_cut_left_behind_does_not_hinder_the_next_installation() {
    let house = House::new();
    let bundle = house.bundle("first", "1.2.0", "1.0.0", true);
    let installed = house.path("installed");
    fs::create_dir_all(installed.join("staging/models")).unwrap();
    fs::write(installed.join("staging/models/net.onnx"), "half").unwrap();
    fs::create_dir_all(installed.join("content/models-0000000000000000-0")).unwrap();
    symlink("content/nowhere", installed.join("models.new")).unwrap();
    fs::write(installed.join("floor.new"), "1.").unwrap();
    house.install(&bundle, "1.1.0").unwrap();
    assert_eq!(house.in_use("models/net.onnx"), "net of 1.2.0");
    assert_eq!(house.installed().floor().unwrap(), Some(version("1.0.0")));
    assert_eq!(fs::read_dir(installed.join("content")).unwrap().count(), 2);
}

#[test]
fn what_two_trusted_people_did_not_sign_is_refused() {
    let house = House::new();
    let bundle = house.bundle("bundle", "1.2.0", "1.0.0", false);
    house.open(&bundle).unwrap();
    let whole = fs::read_to_string(bundle.join(NOTE)).unwrap();

    let others = House::new();
    let refusal = others.refused(&bundle);
    assert_eq!(refusal.reason, Reason::Unsigned);
    let one = describe(&bundle, terms("1.2.0", "1.0.0"), "martin", &house.keys[0]).unwrap();
    fs::write(bundle.join(NOTE), &one).unwrap();
    let refusal = house.refused(&bundle);
    assert!(refusal.to_string().contains("1 of 2"), "{refusal}");
    let twice = add_signature(&one, "petit", &house.keys[0]).unwrap();
    fs::write(bundle.join(NOTE), twice).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Unsigned);
    fs::write(bundle.join(NOTE), whole.replacen("1.2.0", "1.9.0", 1)).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Unsigned);
    // Signed by both, for another use.
    let text = whole.replacen("palmgate update", "palmgate law pack", 1);
    let text = &text[..=text.rfind("\n\n").unwrap()];
    fs::write(bundle.join(NOTE), house.note(text)).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Foreign);
}

#[test]
fn notes_that_are_empty_cut_off_huge_or_no_files_are_refused() {
    let house = House::new();
    let bundle = house.bundle("bundle", "1.2.0", "1.0.0", false);
    let whole = fs::read(bundle.join(NOTE)).unwrap();
    for length in 0..whole.len() {
        fs::write(bundle.join(NOTE), &whole[..length]).unwrap();
        let reason = house.refused(&bundle).reason;
        assert!([Reason::Malformed, Reason::Unsigned].contains(&reason), "{length}: {reason:?}");
    }
    fs::write(bundle.join(NOTE), vec![b'a'; 1024 * 1024]).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::TooLarge);
    fs::write(bundle.join(NOTE), [0xff; 64]).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Malformed);
    fs::remove_file(bundle.join(NOTE)).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Tampered);
    symlink(house.path("elsewhere"), bundle.join(NOTE)).unwrap();
    fs::write(house.path("elsewhere"), &whole).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Tampered);
    fs::remove_file(bundle.join(NOTE)).unwrap();
    fs::create_dir(bundle.join(NOTE)).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Tampered);
    assert_eq!(house.refused(&house.path("nowhere")).reason, Reason::System);
}

#[test]
fn an_expired_bundle_is_refused_from_the_moment_on() {
    let house = House::new();
    let bundle = house.bundle("bundle", "1.2.0", "1.0.0", false);
    let at = |days: i64, millis: i64| {
        let now = Timestamp::from_millis(NOW.as_millis() + days * DAY + millis);
        Bundle::open(&bundle, &house.trusted(), now, None)
    };
    assert!(at(90, -1).is_ok());
    assert_eq!(at(90, 0).unwrap_err().reason, Reason::Expired);
}

#[test]
fn every_changed_file_is_found_and_nothing_of_the_bundle_is_put_in_use() {
    let house = House::new();
    let bundle = house.bundle("bundle", "1.2.0", "1.0.0", true);
    let file = bundle.join("models/net.onnx");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[3] ^= 1;
    for bad in [flipped, whole[..4].to_vec(), Vec::new(), [whole.as_slice(), b"!"].concat()] {
        fs::write(&file, bad).unwrap();
        assert_eq!(house.refused(&bundle).reason, Reason::Tampered);
        assert_eq!(house.install(&bundle, "1.1.0").unwrap_err().reason, Reason::Tampered);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Tampered);
    fs::write(house.path("elsewhere"), &whole).unwrap();
    symlink(house.path("elsewhere"), &file).unwrap();
    assert_eq!(house.refused(&bundle).reason, Reason::Tampered);
    assert!(!house.path("installed/models").exists());
    assert!(!house.root().join("usr/share/palmgate/release").exists());
    fs::remove_file(&file).unwrap();
    fs::write(&file, &whole).unwrap();
    house.install(&bundle, "1.1.0").unwrap();
}

#[test]
fn names_that_lead_elsewhere_and_sizes_beyond_every_bound_are_refused() {
    let house = House::new();
    let bundle = house.bundle("bundle", "1.2.0", "1.0.0", false);
    let whole = fs::read_to_string(bundle.join(NOTE)).unwrap();
    let text = whole[..=whole.rfind("\n\n").unwrap()].to_owned();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        fs::write(bundle.join(NOTE), house.note(&text.replacen(from, to, 1))).unwrap();
        house.refused(&bundle).reason
    };
    for path in [
        "../models/net.onnx",
        "/etc/passwd",
        "models/../../etc",
        "models/.ssh",
        "models//net",
        "models",
        "models/",
        "etc/passwd",
        "models/a/b/c/d",
        "models/-rf",
        "models/n et",
        "models/n\\u0000",
        "packs/mine/pack.toml",
    ] {
        assert_eq!(with("models/net.onnx", path), Reason::Malformed, "{path}");
    }
    assert_eq!(with("size = 12", "size = 300000000000"), Reason::TooLarge);
    assert_eq!(with("size = 12", "size = -1"), Reason::Malformed);
    assert_eq!(with("floor = \"1.0.0\"", "floor = \"1.2.1\""), Reason::Malformed);
    assert_eq!(with("version = \"1.2.0\"", "version = \"latest\""), Reason::Malformed);
    assert_eq!(with("version = ", "colour = 1\nversion = "), Reason::Malformed);
    assert_eq!(with("sha256 = \"", "sha256 = \"Z"), Reason::Malformed);
}

#[test]
fn a_floor_that_cannot_be_read_stops_installing_and_names_its_path() {
    let house = House::new();
    let bundle = house.bundle("bundle", "1.2.0", "1.0.0", true);
    house.install(&bundle, "1.1.0").unwrap();
    let floor = house.installed().floor_path();
    for bad in ["", "latest\n", "1.2", "1.0.0\n1.0.0\n"] {
        fs::write(&floor, bad).unwrap();
        let refusal = house.install(&bundle, "1.2.0").unwrap_err();
        assert_eq!((refusal.reason, &refusal.path), (Reason::Malformed, &floor), "{bad:?}");
    }
}
