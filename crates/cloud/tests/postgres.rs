//! Several real processes over one real PostgreSQL: killed, cut off, attacked, offboarded.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{
    Gateway, apart,
    cluster::Cluster,
    erasure_of, pay_and_roam,
    people::Person,
    problem,
    process::{PROGRAM, Process, Tenant},
};
use palmgate_cloud::{check, clock, offboard, provision};
use palmgate_protocol::{
    DAY, Name, Probe, Purpose,
    cloud::{MemberRecord, Resolution, SearchAnswer, SearchOutcome, SearchQuery},
    decode, encode,
};
use palmgate_seal::envelope::{self, Label};
use reqwest::StatusCode;
use std::{
    process::Command,
    time::{Duration, Instant},
};

const SEARCH: &str = "[search]\nthreshold = 0.9\n";

async fn search(store: &Gateway, person: &Person) -> (SearchAnswer, SearchQuery) {
    let padded = envelope::pad(person.probe().to_bytes().expose(), Probe::PADDED_BYTES);
    let binding = SearchQuery::binding(Purpose::Pay);
    let sealed =
        envelope::seal(&store.matcher, Label::Probe, &store.tenant, &binding, padded.expose());
    let query = SearchQuery { purpose: Purpose::Pay, sealed: sealed.unwrap() };
    let response = store.post("/v1/search", encode(&query)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.bytes().await.unwrap();
    assert_eq!(bytes.len(), SearchAnswer::WIRE_BYTES);
    (decode(envelope::unpad(&bytes).unwrap()).unwrap(), query)
}

/// Asks until the index has caught up with what happened.
async fn search_until(
    store: &Gateway,
    person: &Person,
    enough: impl Fn(&SearchAnswer) -> bool,
) -> (SearchAnswer, SearchQuery) {
    let begun = Instant::now();
    loop {
        let answer = search(store, person).await;
        if enough(&answer.0) {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the index never had it");
    }
}

#[tokio::test]
async fn another_tenants_role_sees_and_writes_nothing() {
    let cluster = Cluster::shared();
    let (tenant, other) = (Tenant::new(cluster, ""), Tenant::new(cluster, ""));
    let process = Process::start(&tenant.state(), &[]);
    let lyon = tenant.store("lyon", "main", process.address).await;
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    lyon.erase(&Person::new()).await;
    let tables = cluster
        .sql("postgres", "SELECT relname FROM pg_class WHERE relnamespace = 'palmgate'::regnamespace AND relkind = 'r' AND relname <> 'schema_version'")
        .unwrap();
    let role = |tenant: &Tenant| format!("palmgate_{}", tenant.name());
    let mut seen = 0;
    for table in tables.lines() {
        let count = |tenant: &Tenant| {
            let sql = format!(
                "SELECT count(*) FROM palmgate.\"{table}\" WHERE tenant = '{}'",
                lyon.tenant
            );
            cluster.sql_as(&role(tenant), "postgres", &sql).unwrap().trim().parse::<u32>().unwrap()
        };
        seen += count(&tenant);
        assert_eq!(count(&other), 0, "{table}");
    }
    assert!(seen > 10, "and its own it sees");
    let write = format!("INSERT INTO palmgate.tombstone VALUES ('{}', '\\x00', 1)", lyon.tenant);
    let refused = cluster.sql_as(&role(&other), "postgres", &write).unwrap_err();
    assert!(refused.contains("row-level security"), "{refused}");
    let nobody = cluster.sql_as(&role(&other), "postgres", "SET ROLE postgres").unwrap_err();
    assert!(nobody.contains("permission denied"), "{nobody}");
}

#[tokio::test]
async fn a_search_says_where_it_looked_and_never_no_when_a_partition_is_missing() {
    let tenant = Tenant::new(Cluster::shared(), SEARCH);
    let state = tenant.state();
    let all = Process::start(&state, &[]);
    let lyon = tenant.store("lyon", "south", all.address).await;
    let mut paris = tenant.store("paris", "north", all.address).await;
    let (roams, stays, stranger) = (Person::new(), Person::new(), Person::new());
    lyon.enrol(&roams, pay_and_roam()).await;
    lyon.enrol(&stays, common::people::purposes([Purpose::Pay])).await;
    let found = |answer: &SearchAnswer| matches!(answer.outcome, SearchOutcome::Found { .. });
    let (answer, query) = search_until(&paris, &roams, found).await;
    let names = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&answer.searched), ["north", "south"]);
    let SearchOutcome::Found { sealed } = answer.outcome else { panic!() };
    let binding = SearchAnswer::binding(&query);
    let record = envelope::open(&paris.key, Label::Resolution, &paris.tenant, &binding, &sealed);
    let record: MemberRecord = decode(record.unwrap().expose()).unwrap();
    assert!(record.member == roams.member);
    for unknown in [&stays, &stranger] {
        let (answer, _) = search(&paris, unknown).await;
        assert!(matches!(answer.outcome, SearchOutcome::NotFound));
    }
    assert!(paris.fetch().await);
    assert!(paris.has(&roams), "a found person is in the next shard");

    let (plan, north): (Name, Name) = ("one".parse().unwrap(), "north".parse().unwrap());
    apart(|| provision::assign(&state, &plan, &[north]).unwrap());
    let part = Process::start(&state, &["--matcher", "one"]);
    paris.address = part.address;
    let (answer, _) = search_until(&paris, &stranger, |answer| answer.missing.len() == 1).await;
    assert!(matches!(answer.outcome, SearchOutcome::Unknown));
    assert_eq!(names(&answer.missing), ["south"]);

    paris.address = all.address;
    lyon.erase(&roams).await;
    let (answer, _) = search(&paris, &roams).await;
    assert!(matches!(answer.outcome, SearchOutcome::NotFound), "from the answer on");
}

#[tokio::test]
async fn two_people_with_one_palm_are_nobody() {
    let tenant = Tenant::new(Cluster::shared(), SEARCH);
    let process = Process::start(&tenant.state(), &[]);
    let lyon = tenant.store("lyon", "main", process.address).await;
    let one = Person::new();
    lyon.enrol(&one, pay_and_roam()).await;
    search_until(&lyon, &one, |answer| matches!(answer.outcome, SearchOutcome::Found { .. })).await;
    let other = Person { palm: one.palm, ..Person::new() };
    lyon.enrol(&other, pay_and_roam()).await;
    search_until(&lyon, &one, |answer| matches!(answer.outcome, SearchOutcome::NotFound)).await;
}

#[tokio::test]
async fn a_cloud_without_the_choice_searches_for_nobody() {
    let tenant = Tenant::new(Cluster::shared(), "");
    let process = Process::start(&tenant.state(), &[]);
    let lyon = tenant.store("lyon", "main", process.address).await;
    let query = SearchQuery { purpose: Purpose::Pay, sealed: vec![0; 100] };
    let refused = lyon.post("/v1/search", encode(&query)).await;
    assert_eq!(problem(refused).await, (422, "search-refused".into()));
}

/// Enrols, erases and fetches as fast as the cloud answers; what was acknowledged is noted.
async fn work(store: &mut Gateway, until: Instant) -> (Vec<Person>, Vec<Person>) {
    let (mut enrolled, mut erased): (Vec<Person>, Vec<Person>) = (Vec::new(), Vec::new());
    for number in 1.. {
        if Instant::now() >= until {
            break;
        }
        let person = Person::new();
        let registration = encode(&store.operator(&person, pay_and_roam()));
        if answered(store, "/v1/registrations", registration).await == Some(StatusCode::NO_CONTENT)
        {
            enrolled.push(person);
        }
        if number % 8 == 0 && !enrolled.is_empty() {
            let gone = *enrolled.last().unwrap();
            let asked = encode(&erasure_of(&gone));
            // Not enrolled any more, whatever the answer is: it may have happened.
            enrolled.pop();
            if answered(store, "/v1/erasures", asked).await == Some(StatusCode::OK) {
                erased.push(gone);
            }
        }
        if number % 16 == 3 {
            let _ = store.request(reqwest::Method::GET, "/v1/shard?held=0").send().await;
        }
    }
    (enrolled, erased)
}

async fn answered(store: &Gateway, path: &str, body: Vec<u8>) -> Option<StatusCode> {
    let request =
        store.request(reqwest::Method::POST, path).header("content-type", "application/cbor");
    Some(request.body(body).timeout(Duration::from_secs(3)).send().await.ok()?.status())
}

#[tokio::test]
async fn killed_processes_and_a_killed_database_lose_nothing_and_bring_nobody_back() {
    let cluster = Cluster::start(&["max_connections=100"]);
    let tenant = Tenant::new(&cluster, "[limits]\nrequests_per_minute = 1000000\n");
    let state = tenant.state();
    let mut processes = [Process::start(&state, &[]), Process::start(&state, &[])];
    let mut lyon = tenant.store("lyon", "main", processes[0].address).await;
    let mut paris = tenant.store("paris", "main", processes[1].address).await;
    let (mut enrolled, mut erased) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let until = Instant::now() + Duration::from_secs(3);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(1700)).await;
            if round % 2 == 0 {
                apart(|| cluster.kill());
            } else {
                apart(|| processes[round / 2].kill());
            }
        };
        let (of_lyon, of_paris, ()) =
            tokio::join!(work(&mut lyon, until), work(&mut paris, until), kill);
        if round % 2 == 0 {
            apart(|| cluster.launch());
        } else {
            processes[round / 2] = apart(|| Process::start(&state, &[]));
        }
        (lyon.address, paris.address) = (processes[0].address, processes[1].address);
        for (store, (more, gone)) in [(0, of_lyon), (1, of_paris)] {
            enrolled.extend(more.into_iter().map(|person| (store, person)));
            erased.extend(gone);
        }
    }
    assert!(enrolled.len() > 20 && erased.len() > 2, "{} {}", enrolled.len(), erased.len());
    // Connections that died with the database are replaced at their next use.
    assert!(lyon.finds(&enrolled[0].1).await);
    lyon.fetch().await;
    paris.fetch().await;
    for (store, person) in &enrolled {
        let home = if *store == 0 { &lyon } else { &paris };
        assert!(home.has(person), "an acknowledged enrolment is lost");
    }
    for person in &erased {
        assert!(!lyon.has(person) && !paris.has(person), "an erased person is back");
        let again = encode(&lyon.operator(person, pay_and_roam()));
        let refused = lyon.post("/v1/registrations", again).await;
        assert_eq!(problem(refused).await, (410, "forgotten".into()));
    }
}

#[tokio::test]
async fn one_of_two_processes_killed_under_load_gives_no_wrong_answer_and_the_other_goes_on() {
    let tenant = Tenant::new(
        Cluster::shared(),
        "[limits]\nrequests_per_minute = 1000000\nresolutions_per_minute = 1000000\ntries_per_claim_per_hour = 1000000\n",
    );
    let state = tenant.state();
    let (mut first, second) = (Process::start(&state, &[]), Process::start(&state, &[]));
    let lyon = tenant.store("lyon", "main", first.address).await;
    let mut paris = tenant.store("paris", "main", first.address).await;
    let (person, stranger) = (Person::new(), Person::new());
    lyon.enrol(&person, pay_and_roam()).await;
    let begun = Instant::now();
    let (mut killed, mut back) = (None, None);
    while begun.elapsed() < Duration::from_secs(4) {
        if killed.is_none() && begun.elapsed() > Duration::from_secs(1) {
            apart(|| first.kill());
            killed = Some(Instant::now());
        }
        for (palm, expected) in [(&person, true), (&stranger, false)] {
            let query = encode(&paris.query(&person, Purpose::Pay, palm));
            let request = paris.request(reqwest::Method::POST, "/v1/resolve/probe");
            let request = request.header("content-type", "application/cbor").body(query);
            match request.timeout(Duration::from_secs(2)).send().await {
                Ok(response) => {
                    let (answer, _) = common::resolution(response).await;
                    assert_eq!(matches!(answer, Resolution::Found { .. }), expected);
                    if let Some(killed) = killed {
                        back.get_or_insert(killed.elapsed());
                    }
                }
                Err(_) => paris.address = second.address,
            }
        }
    }
    assert!(back.unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_process_serves_no_store_of_another_region_and_does_not_start_in_another() {
    let tenant = Tenant::new(Cluster::shared(), "");
    let process = Process::start(&tenant.state(), &[]);
    let lyon = tenant.store("lyon", "main", process.address).await;
    let there =
        format!("UPDATE palmgate.partition SET region = 'us' WHERE tenant = '{}'", tenant.name());
    Cluster::shared().sql("postgres", &there).unwrap();
    let refused = lyon.get("/v1/directory").await;
    assert_eq!(problem(refused).await, (403, "outside-region".into()));
    let file = tenant.state().join("cloud.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("\"eu\"", "\"us\"");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(tenant.state())
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{words}");
    assert!(words.contains("kept in the region eu"), "{words}");
}

#[tokio::test]
async fn a_process_dials_the_database_and_nothing_else() {
    let tenant = Tenant::new(Cluster::shared(), "");
    let process = Process::start(&tenant.state(), &[]);
    let lyon = tenant.store("lyon", "main", process.address).await;
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    lyon.erase(&person).await;
    let pid = process.child.id();
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let port = format!(":{:04X}", process.address.port());
    let mut own = 0;
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if sockets.iter().any(|socket| socket == fields[9]) {
                assert!(fields[1].ends_with(&port), "a connection that it did not accept: {line}");
                own += 1;
            }
        }
    }
    assert!(own > 0, "the listener is seen");
}

#[tokio::test]
async fn everybody_of_a_tenant_that_leaves_is_erased_with_a_receipt() {
    let tenant = Tenant::new(Cluster::shared(), "");
    let process = Process::start(&tenant.state(), &[]);
    let mut lyon = tenant.store("lyon", "main", process.address).await;
    let people: Vec<Person> = (0..5).map(|_| Person::new()).collect();
    for person in &people {
        lyon.enrol(person, pay_and_roam()).await;
    }
    lyon.register(&Person::new().split(pay_and_roam(), common::in_a_month())).await;
    lyon.fetch().await;
    let (mut receipts, state) = (Vec::new(), tenant.state());
    let done = apart(|| offboard::remove(&state, &mut receipts, clock::now()).unwrap());
    assert_eq!((done.erased, done.unconfirmed), (6, 6));
    let text = String::from_utf8(receipts).unwrap();
    assert_eq!(text.lines().count(), 6);
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = |key: &str| {
            data_encoding::HEXLOWER.decode(line[key].as_str().unwrap().as_bytes()).unwrap()
        };
        let commitment: [u8; 32] = bytes("commitment").try_into().unwrap();
        let state = palmgate_protocol::cloud::ErasureState {
            erased_at: palmgate_protocol::Timestamp::from_millis(
                line["erased_at_ms"].as_i64().unwrap(),
            ),
            outstanding: vec![lyon.name.clone()],
            signature: data_encoding::BASE64
                .decode(line["signature"].as_str().unwrap().as_bytes())
                .unwrap(),
        };
        let signed = state.signed_bytes(&commitment);
        lyon.publisher
            .verify(palmgate_protocol::cloud::ErasureState::LABEL, &signed, &state.signature)
            .unwrap();
    }
    assert!(lyon.fetch().await);
    lyon.confirm().await;
    assert!(lyon.members.is_empty());
    let left = format!(
        "SELECT count(*) FROM palmgate.member m FULL JOIN palmgate.person_key k USING (tenant) WHERE tenant = '{}'",
        tenant.name()
    );
    assert_eq!(Cluster::shared().sql("postgres", &left).unwrap().trim(), "0");
}

#[tokio::test]
async fn check_says_what_is_wrong_and_what_to_do() {
    let cluster = Cluster::start(&["fsync=off"]);
    let tenant = Tenant::new(&cluster, "");
    let state = tenant.state();
    let worst = |now| {
        let findings = apart(|| check::check(&state, now));
        let failed = findings.iter().filter(|it| it.verdict == check::Verdict::Failed);
        failed.map(|it| format!("{}: {}", it.subject, it.words)).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(worst(clock::now()), "");
    let late = worst(clock::now().after(DAY * 900));
    assert!(late.contains("certificate") && late.contains("renew-server"), "{late}");
    cluster.sql("postgres", "INSERT INTO palmgate.schema_version VALUES (999)").unwrap();
    let newer = worst(clock::now());
    assert!(newer.contains("999") && newer.contains("newer program"), "{newer}");
    cluster.sql("postgres", "DELETE FROM palmgate.schema_version").unwrap();
    assert!(worst(clock::now()).contains("palmgate-cloud migrate"));
    cluster.sql("postgres", "INSERT INTO palmgate.schema_version VALUES (1)").unwrap();
    cluster
        .sql("postgres", &format!("ALTER ROLE \"palmgate_{}\" BYPASSRLS", tenant.name()))
        .unwrap();
    assert!(worst(clock::now()).contains("row-level security"));
    apart(|| cluster.kill());
    let gone = worst(clock::now());
    assert!(gone.contains("the database at"), "{gone}");
}

#[tokio::test]
async fn a_database_across_a_network_needs_an_authority_and_no_password_stands_in_the_url() {
    let tenant = Tenant::new(Cluster::shared(), "");
    let file = tenant.state().join("cloud.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let url = good.lines().find(|line| line.starts_with("url =")).unwrap();
    for (wrong, word) in [
        ("postgres://db.example/palmgate", "ca"),
        ("postgres://palmgate:secret@localhost/palmgate", "password_file"),
        ("postgres:///palmgate", "host"),
        ("nonsense", "url"),
    ] {
        std::fs::write(&file, good.replace(url, &format!("url = \"{wrong}\""))).unwrap();
        let output = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--state"])
            .arg(tenant.state())
            .output()
            .unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{words}");
        assert!(words.contains(word) && !words.contains("secret"), "{words}");
    }
}
