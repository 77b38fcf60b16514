//! What people may do about their data, and what the office owes them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use anyhow::Result;
use palmgate_cli::stage::Cloud;
use palmgate_protocol::{
    Biometric, Custody, Purpose, Timestamp,
    terminal::{Accepted, AnswerBody, Intent, PossessionKey, Refusal, WrittenRelease},
};
use palmgate_stories::{Person, Scene, accepted, palmgate, pay, phone};
use palmgate_terminal::{Presentation, Prover};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

const CONTROLLER: &str = r#"
[law]
controller = "Example SAS, 1 rue de l'Exemple, Lyon"
contact = "privacy@example.com"
officer = "dpo@example.com"
"#;

async fn scene(custody: Custody) -> Result<Scene> {
    Scene::under(custody, None, tempfile::tempdir()?, "lyon", (CONTROLLER, true)).await
}

fn shown(custody: Custody) -> Option<usize> {
    (custody != Custody::Operator).then_some(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_enrols_gets_a_receipt_that_verifies_without_a_network() -> Result<()> {
    let mut scene = scene(Custody::Split).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay, Purpose::Loyalty]).await?;
    assert_eq!(shopper.receipts.len(), 2, "one for each purpose");
    scene.store.process.stop()?;
    let file = scene.directory.path().join("receipt.jsonld");
    let key = scene.store.state.join("ledger.pub").display().to_string();
    let check = |text: &str| {
        fs::write(&file, text)?;
        palmgate(&["audit", "consent", &file.display().to_string(), "--key", &key])
    };
    for receipt in &shopper.receipts {
        let said = check(receipt)?;
        assert!(said.success && said.text.contains("Example SAS"), "{} {}", said.text, said.errors);
        assert!(receipt.len() <= 2_953, "fits a QR code: {} bytes", receipt.len());
        let forged = check(&receipt.replacen("fr-cnil-1", "fr-cnil-9", 1))?;
        assert!(!forged.success && forged.errors.contains("was changed"), "{}", forged.errors);
    }
    println!("receipts: {:?} bytes", shopper.receipts.iter().map(String::len).collect::<Vec<_>>());
    assert!(!check("not a receipt")?.success && !check("")?.success);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_gets_a_copy_and_takes_templates_along_that_only_their_key_opens() -> Result<()> {
    for custody in [Custody::Operator, Custody::Split, Custody::Subject] {
        let scene = scene(custody).await?;
        let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
        let claim = shown(custody);
        assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), claim).await?));
        let body = scene.present(&scene.kiosk, &shopper, Intent::Export, claim).await?;
        let AnswerBody::Exported { document } = body else { panic!("{custody}: {body:?}") };
        for part in ["\"kiosk-1\"", &phone(shopper.index), "palmgate-export-1", "privacy@example"] {
            assert!(document.0.contains(part), "{custody}: {part} in {}", document.0);
        }
        let at = |name: &str| scene.directory.path().join(name).display().to_string();
        let made = palmgate(&["rights", "key", &at("own.key")])?;
        let key: [u8; 32] = hex(made.text.trim());
        let other = palmgate(&["rights", "key", &at("other.key")])?;
        assert!(made.success && made.text != other.text);
        let body = scene.present(&scene.kiosk, &shopper, Intent::Port { key }, claim).await?;
        let AnswerBody::Exported { document } = body else { panic!("{custody}: {body:?}") };
        fs::write(at("taken.json"), &document.0)?;
        let unseal = |key: &str| palmgate(&["rights", "unseal", &at("taken.json"), "--key", key]);
        let opened = unseal(&at("own.key"))?;
        assert!(opened.success && opened.text.contains("1 templates"), "{}", opened.errors);
        assert!(!unseal(&at("other.key"))?.success, "{custody}: another key");
        let stranger = Person { index: scene.pictures.len() - 1, ..shopper.clone() };
        let body = scene.present(&scene.kiosk, &stranger, Intent::Export, claim).await?;
        assert!(matches!(body, AnswerBody::NotRecognised), "{custody}: {body:?}");
        let weak = Intent::Port { key: [0; 32] };
        let body = scene.present(&scene.kiosk, &shopper, weak, claim).await?;
        assert!(matches!(body, AnswerBody::Refused { reason: Refusal::Malformed }), "{body:?}");
    }
    Ok(())
}

fn pseudonym(body: AnswerBody) -> [u8; 16] {
    let AnswerBody::Accepted(Accepted { pseudonym, .. }) = body else { panic!("{body:?}") };
    *pseudonym.0.as_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_enrolment_takes_the_place_of_the_old_one_and_its_key() -> Result<()> {
    for custody in [Custody::Operator, Custody::Split] {
        let mut scene = scene(custody).await?;
        let shopper = scene.enrol(0, &[Purpose::Pay, Purpose::Loyalty]).await?;
        let claim = shown(custody);
        let before = scene.present(&scene.kiosk, &shopper, Intent::Loyalty, claim).await?;
        let before = pseudonym(before);
        let shown_claim = claim.map(|claim| Biometric::new(shopper.claims[claim].clone()));
        let enrolment = scene.enrolment(shopper.index, &[Purpose::Pay, Purpose::Loyalty]);
        let body = scene.kiosk.rectify(enrolment, shown_claim).await?.body;
        let AnswerBody::Enrolled { claims, receipts } = body else { panic!("{custody}: {body:?}") };
        let claims = claims.into_iter().map(|claim| claim.token.0.to_vec()).collect();
        let corrected = Person { claims, receipts, ..shopper.clone() };
        // Somebody else's palm corrects nothing, whatever they show.
        let stranger = scene.enrolment(scene.pictures.len() - 1, &[Purpose::Pay]);
        let shown_claim = claim.map(|claim| Biometric::new(corrected.claims[claim].clone()));
        let body = scene.kiosk.rectify(stranger, shown_claim).await?.body;
        assert!(
            matches!(body, AnswerBody::NotRecognised | AnswerBody::Retry { .. }),
            "{custody}: {body:?}"
        );
        for restarted in [false, true] {
            if restarted {
                scene.store.process.stop()?;
                scene.store.restart().await?;
                scene.kiosk.ready(Duration::from_secs(20)).await?;
            }
            let body = scene.present(&scene.kiosk, &corrected, Intent::Loyalty, claim).await?;
            assert_eq!(pseudonym(body), before, "{custody}: the same account");
            if custody == Custody::Split {
                let body = scene.present(&scene.kiosk, &shopper, pay(100), claim).await?;
                assert!(!accepted(&body), "the old token: {body:?}");
            }
            let body = scene.present(&scene.kiosk, &corrected, Intent::History, claim).await?;
            let AnswerBody::History { uses, .. } = body else { panic!("{body:?}") };
            assert!(uses.len() >= 2, "{custody}: the history goes on: {uses:?}");
        }
        assert_eq!(fs::read_dir(scene.store.state.join("receipts"))?.count(), 1);
        let standing = scene.store.control.counter().await?;
        assert_eq!(standing.people.values().sum::<usize>(), 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_office_answers_requests_and_reports_a_breach_over_a_restart() -> Result<()> {
    let mut scene = scene(Custody::Split).await?;
    let opened = scene.office(&["rights", "open", "access", "--reference", "2026-17"])?;
    assert!(opened.success && opened.text.contains("due before"), "{}", opened.errors);
    for part in ["2026-17", "access (Art. 15)", "G-12-3", "Example SAS"] {
        assert!(opened.text.contains(part), "{part} in {}", opened.text);
    }
    let blank = scene.office(&["rights", "refuse", "1", "--reasons", " "])?;
    assert!(!blank.success && blank.errors.contains("G-12-4"), "{}", blank.errors);
    let card = scene.office(&["rights", "refuse", "1", "--reasons", "card 4111 1111 1111 1111"])?;
    assert!(!card.success && card.errors.contains("P-PCI-1"), "{}", card.errors);
    let breach = scene.office(&["breach", "open", "--nature", "a box was stolen"])?;
    assert!(breach.success && breach.text.contains("breach     2"), "{}", breach.text);
    scene.store.process.stop()?;
    scene.store.restart().await?;
    let listed = scene.office(&["rights", "list"])?;
    assert!(listed.text.contains("2026-17") && listed.text.contains("calm"), "{}", listed.text);
    let draft = scene.office(&["breach", "draft", "2", "--language", "fr"])?;
    assert!(!draft.success && draft.text.contains("a box was stolen"), "{}", draft.text);
    assert!(draft.errors.contains("lacks contact, consequences, measures"), "{}", draft.errors);
    let early = scene.office(&["breach", "report", "2"])?;
    assert!(!early.success && early.errors.contains("G-33"), "{}", early.errors);
    let described = [
        "breach",
        "describe",
        "2",
        "--contact",
        "dpo@example.com",
        "--consequences",
        "none: the keys lie with the people",
        "--measures",
        "the certificate is revoked",
    ];
    assert!(scene.office(&described)?.success);
    assert!(scene.office(&["breach", "draft", "2"])?.success);
    assert!(scene.office(&["breach", "report", "2"])?.success);
    let refused =
        scene.office(&["rights", "refuse", "1", "--reasons", "unfounded", "--language", "fr"])?;
    assert!(refused.success && refused.text.contains("cnil.fr"), "{}", refused.text);
    assert!(!scene.office(&["rights", "grant", "1"])?.success, "it is closed");
    assert!(scene.office(&["duties", "done", "training"])?.success);
    let metrics = scene.store.metrics().await?;
    assert!(metrics.contains("palmgate_rights_requests{urgency=\"late\"} 0"), "{metrics}");
    assert!(metrics.contains("palmgate_breaches_unreported 0"));
    let clock = scene.office(&["clock", "show"])?;
    assert!(clock.success && clock.text.contains("decisions"), "{}", clock.errors);
    scene.store.process.stop()?;
    let ledger = read_ledger(&scene.store.state.join("ledger"))?;
    for (word, rule) in [
        ("request-opened", "G-12-3"),
        ("office-denied", "G-12-4"),
        ("request-refused", "G-12-3"),
        ("breach-reported", "G-33"),
        ("duty-recorded", "G-05-2"),
    ] {
        let entry = ledger.lines().find(|line| line.contains(&format!("\"{word}\"")));
        assert!(entry.is_some_and(|line| line.contains(rule)), "{word} {rule} in {ledger}");
    }
    assert!(scene.files_with(b"a box was stolen")?.is_empty(), "sealed on the disk");
    Ok(())
}

fn read_ledger(directory: &Path) -> Result<String> {
    let mut text = String::new();
    for file in fs::read_dir(directory.join("entries"))? {
        text.push_str(&fs::read_to_string(file?.path())?);
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_by_palm_alone_are_counted_over_a_power_cut() -> Result<()> {
    let mut scene = scene(Custody::Operator).await?;
    let shopper = scene.enrol(0, &[Purpose::Pay]).await?;
    for number in 1..=5 {
        let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
        assert!(accepted(&body), "payment {number}: {body:?}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.store.process.kill()?;
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    let body = scene.present(&scene.kiosk, &shopper, pay(100), None).await?;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::StepUp }), "{body:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legal_hold_keeps_uses_without_their_people_and_never_a_palm() -> Result<()> {
    let scene = scene(Custody::Operator).await?;
    let (one, two) =
        (scene.enrol(0, &[Purpose::Pay]).await?, scene.enrol(30, &[Purpose::Pay]).await?);
    let place = |item: &str| {
        let signed = ["--signed-by", "A. Martin", "--signed-by", "B. Petit"];
        let hold = ["hold", "place", "--item", item, "--article", "17(3)(e)", "--until"];
        scene.office(&[&hold[..], &[in_days(60).as_str()], &signed[..]].concat())
    };
    let biometric = place("template")?;
    assert!(!biometric.success && biometric.errors.contains("E-CEF25"), "{}", biometric.errors);
    assert!(accepted(&scene.present(&scene.kiosk, &one, pay(100), None).await?));
    scene.present(&scene.kiosk, &one, Intent::Erase, None).await?;
    assert!(scene.office(&["hold", "show"])?.text.contains("0 uses"), "nothing is held yet");
    let placed = place("use")?;
    assert!(placed.success, "{}", placed.errors);
    assert!(accepted(&scene.present(&scene.kiosk, &two, pay(100), None).await?));
    let body = scene.present(&scene.kiosk, &two, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    let held = scene.office(&["hold", "show"])?.text;
    assert!(held.contains("kiosk-1 pay") && held.contains("1 uses"), "{held}");
    let body = scene.present(&scene.kiosk, &two, pay(100), None).await?;
    assert!(matches!(body, AnswerBody::NotRecognised), "{body:?}");
    let list = scene.office(&["hold", "list", "--json"])?;
    let holds: Vec<palmgate_gateway::office::HoldView> = serde_json::from_str(&list.text)?;
    assert!(scene.office(&["hold", "end", &holds[0].id.to_string()])?.success);
    assert!(scene.office(&["hold", "show"])?.text.contains("0 uses"), "gone with the hold");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decommissioned_box_holds_nobody_and_has_a_receipt_for_each() -> Result<()> {
    let mut scene = scene(Custody::Operator).await?;
    let people = [scene.enrol(0, &[Purpose::Pay]).await?, scene.enrol(30, &[Purpose::Pay]).await?];
    assert!(!scene.office(&["decommission"])?.success, "nobody said yes");
    let done = scene.office(&["decommission", "--yes"])?;
    assert!(done.success && done.text.contains("2 people"), "{} {}", done.text, done.errors);
    scene.store.process.stop()?;
    let receipts = fs::read_dir(scene.store.state.join("receipts"))?;
    let receipts: Vec<_> = receipts.map(|file| fs::read_to_string(file?.path())).collect();
    assert_eq!(receipts.len(), 2);
    for receipt in receipts {
        let receipt = palmgate_ledger::receipt::verify(&receipt?, None)?;
        assert_eq!(receipt.rules, ["C-RT-10e"]);
    }
    scene.store.restart().await?;
    scene.kiosk.ready(Duration::from_secs(20)).await?;
    for person in &people {
        let body = scene.present(&scene.kiosk, person, pay(100), None).await?;
        assert!(matches!(body, AnswerBody::NotRecognised), "{body:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_takes_the_record_back_from_other_stores_until_the_person_enrols_anew() -> Result<()>
{
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(directory.path(), &"tenant".parse()?)?;
    let custody = Custody::Operator;
    let paris = Scene::with(custody, Some(&cloud), tempfile::tempdir()?, "paris").await?;
    let lyon = Scene::with(custody, Some(&cloud), directory, "lyon").await?;
    let shopper = paris.enrol(0, &[Purpose::Pay, Purpose::Roaming]).await?;
    let in_lyon = async |person: &Person, wanted: bool| {
        let begun = Instant::now();
        loop {
            let body = lyon.present(&lyon.kiosk, person, pay(10), Some(0)).await?;
            if accepted(&body) == wanted || begun.elapsed() > Duration::from_secs(15) {
                return Ok::<_, anyhow::Error>(body);
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    assert!(accepted(&in_lyon(&shopper, true).await?));
    paris.present(&paris.kiosk, &shopper, Intent::Pause, None).await?;
    let body = in_lyon(&shopper, false).await?;
    assert!(!accepted(&body), "lyon was told: {body:?}");
    let body = paris.present(&paris.kiosk, &shopper, Intent::Resume, None).await?;
    assert!(matches!(body, AnswerBody::Done), "paris still has the person: {body:?}");
    assert!(accepted(&paris.present(&paris.kiosk, &shopper, pay(10), None).await?));
    let enrolment = paris.enrolment(shopper.index, &[Purpose::Pay, Purpose::Roaming]);
    let body = paris.kiosk.rectify(enrolment, None).await?.body;
    let AnswerBody::Enrolled { claims, receipts } = body else { panic!("{body:?}") };
    let claims = claims.into_iter().map(|claim| claim.token.0.to_vec()).collect();
    let anew = Person { claims, receipts, ..shopper.clone() };
    assert!(accepted(&in_lyon(&anew, true).await?), "a new identity roams again");
    Ok(())
}

/// A copy of the packs, signed by two people, and the table `[law]` that trusts them.
fn signed_pack(directory: &Path, name: &str) -> Result<String> {
    let packs = directory.join("packs");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/packs");
    for layer in ["eu-gdpr", name] {
        fs::create_dir_all(packs.join(layer))?;
        for file in fs::read_dir(source.join(layer))? {
            let file = file?;
            fs::copy(file.path(), packs.join(layer).join(file.file_name()))?;
        }
    }
    let (pack, note) = (packs.join(name), directory.join("note"));
    let signers = sign_pack(directory, name)?;
    Ok(format!(
        "\n[law]\npack = \"{}\"\nnote = \"{}\"\nsigners = [{signers}]\n\
         controller = \"Example Inc., Chicago\"\ncontact = \"privacy@example.com\"\n\
         statements = [\"public-retention-policy\"]\n",
        pack.display(),
        note.display()
    ))
}

fn sign_pack(directory: &Path, name: &str) -> Result<String> {
    let (pack, note) = (directory.join("packs").join(name), directory.join("note"));
    let _ = fs::remove_file(&note);
    let mut signers = Vec::new();
    for who in ["martin", "petit"] {
        let key = directory.join(format!("{who}.key")).display().to_string();
        let (pack, note) = (pack.display().to_string(), note.display().to_string());
        let arguments = ["policy", "sign", &pack, "--note", &note, "--name", who, "--key", &key];
        let signed = palmgate(&arguments)?;
        assert!(signed.success, "{}", signed.errors);
        let signer = signed.text.lines().find_map(|line| line.strip_prefix("signer     "));
        signers.push(format!("{:?}", signer.unwrap()));
    }
    Ok(signers.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_illinois_enrols_who_signed_a_release_and_a_bad_pack_never_comes_into_force()
-> Result<()> {
    let directory = tempfile::tempdir()?;
    let law = signed_pack(directory.path(), "us-il")?;
    let scene = Scene::under(Custody::Split, None, directory, "chicago", (&law, false)).await?;
    let enrolment = |index: usize, release: Option<&str>| {
        let mut enrolment = scene.enrolment(index, &[Purpose::Pay]);
        enrolment.release = release.map(|name| WrittenRelease {
            name: Biometric::new(name.as_bytes().to_vec()),
            signed_at: now(),
            purpose_stated: true,
            duration_stated: true,
        });
        enrolment
    };
    let body = scene.kiosk.enrol(enrolment(0, None)).await?.body;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::ConsentMissing }), "{body:?}");
    let card = "4111 1111 1111 1111";
    let body = scene.kiosk.enrol(enrolment(0, Some(card))).await?.body;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::CardNumber }), "{body:?}");
    let name = "Zebulon Quillfeather";
    let mut enrolled = None;
    for index in 0..scene.pictures.len() {
        let body = scene.kiosk.enrol(enrolment(index, Some(name))).await?.body;
        if let AnswerBody::Enrolled { claims, receipts } = body {
            let claims = claims.into_iter().map(|claim| claim.token.0.to_vec()).collect();
            enrolled = Some(Person { index, claims, receipts });
            break;
        }
    }
    let shopper = enrolled.unwrap();
    assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), Some(0)).await?));
    assert!(scene.files_with(name.as_bytes())?.is_empty(), "the release is sealed");
    // A pack that is no longer as it was signed, one that is wrong, and one that holds.
    let pack = scene.directory.path().join("packs/us-il/pack.toml");
    let before = fs::read_to_string(&pack)?;
    fs::write(&pack, before.replace("P3Y", "P2Y"))?;
    let unsigned = scene.office(&["policy", "load"])?;
    assert!(
        !unsigned.success && unsigned.errors.contains("us-il/pack.toml"),
        "{}",
        unsigned.errors
    );
    fs::write(&pack, before.replace("rule = \"RET-14\"", "rule = \"RET-99\""))?;
    let wrong = scene.office(&["policy", "load"])?;
    assert!(!wrong.success && wrong.errors.contains("RET-99"), "{}", wrong.errors);
    assert!(wrong.errors.contains("us-il/pack.toml:"), "file and line: {}", wrong.errors);
    assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), Some(0)).await?));
    fs::write(&pack, before.replace("P3Y", "P2Y"))?;
    sign_pack(scene.directory.path(), "us-il")?;
    let loaded = scene.office(&["policy", "load"])?;
    assert!(loaded.success && loaded.text.contains("us-il"), "{} {}", loaded.text, loaded.errors);
    assert!(accepted(&scene.present(&scene.kiosk, &shopper, pay(100), Some(0)).await?));
    Ok(())
}

fn now() -> Timestamp {
    let passed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap())
}

fn in_days(days: i64) -> String {
    let date = (time::OffsetDateTime::now_utc() + time::Duration::days(days)).date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_palm_and_a_phone_that_proves_it_is_there_pay_beyond_the_exemption() -> Result<()> {
    let scene = scene(Custody::Split).await?;
    let phone = palmgate_seal::sign::SigningKey::generate();
    let mut shopper = None;
    for index in 0..scene.pictures.len() {
        let mut enrolment = scene.enrolment(index, &[Purpose::Pay]);
        enrolment.possession = Some(PossessionKey { key: phone.public().0 });
        if let AnswerBody::Enrolled { claims, receipts } = scene.kiosk.enrol(enrolment).await?.body
        {
            let claims = claims.into_iter().map(|claim| claim.token.0.to_vec()).collect();
            shopper = Some(Person { index, claims, receipts });
            break;
        }
    }
    let shopper = shopper.unwrap();
    let hand = |index: usize, possession: Option<Prover>| Presentation {
        frames: scene.pictures[index].other_frames(77),
        claim: Some(Biometric::new(shopper.claims[0].clone())),
        possession,
        ..Presentation::default()
    };
    let sign = |key: &palmgate_seal::sign::SigningKey| -> Prover {
        let key = palmgate_seal::sign::SigningKey::from_pkcs8(key.pkcs8().expose()).unwrap();
        Box::new(move |challenge| challenge.sign(&key))
    };
    for amount in [100, 8_000] {
        let body = scene.kiosk.scan(pay(amount), hand(shopper.index, None)).await?.body;
        assert!(matches!(body, AnswerBody::Refused { reason: Refusal::StepUp }), "{body:?}");
    }
    let other = palmgate_seal::sign::SigningKey::generate();
    let body = scene.kiosk.scan(pay(8_000), hand(shopper.index, Some(sign(&other)))).await?.body;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::ClaimInvalid }), "{body:?}");
    let body = scene.kiosk.scan(pay(8_000), hand(shopper.index, Some(sign(&phone)))).await?.body;
    assert!(accepted(&body), "{body:?}");
    // A proof that was made once opens nothing a second time.
    let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
    let first = std::sync::Arc::clone(&kept);
    let signer = palmgate_seal::sign::SigningKey::from_pkcs8(phone.pkcs8().expose())?;
    let tap: Prover = Box::new(move |challenge| {
        let proof = challenge.sign(&signer);
        *first.lock().unwrap() = Some(proof.clone());
        proof
    });
    assert!(accepted(&scene.kiosk.scan(pay(100), hand(shopper.index, Some(tap))).await?.body));
    let again: Prover = Box::new(move |_| kept.lock().unwrap().clone().unwrap());
    let body = scene.kiosk.scan(pay(100), hand(shopper.index, Some(again))).await?.body;
    assert!(matches!(body, AnswerBody::Refused { reason: Refusal::ClaimInvalid }), "{body:?}");
    // The phone alone is one factor.
    let stranger = scene.pictures.len() - 1;
    let body = scene.kiosk.scan(pay(8_000), hand(stranger, Some(sign(&phone)))).await?.body;
    assert!(matches!(body, AnswerBody::NotRecognised), "{body:?}");
    Ok(())
}
