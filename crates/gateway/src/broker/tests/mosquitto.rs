//! The files for Mosquitto say the same as this broker does.

use palmgate_protocol::{
    Name,
    limits::MAX_PAYLOAD_BYTES,
    topic::{self, Channel, GATEWAY, HEALTH},
};

const CONFIGURATION: &str = include_str!("../../../../../config/mosquitto/mosquitto.conf");
const RULES: &str = include_str!("../../../../../config/mosquitto/acl");

/// What `acl` grants, by the manual page mosquitto.conf(5): a user's `deny` lines, then the user's
/// other lines, then the patterns.
fn grants(client: &str, access: &str, topic: &str) -> bool {
    let (mut user, mut granted) = ("", false);
    for line in RULES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let (theirs, filter) = match words[..] {
            ["user", name] => {
                user = name;
                continue;
            }
            ["topic", _, filter] => (user == client, filter.to_owned()),
            ["pattern", _, filter] => (true, filter.replace("%u", client)),
            _ => panic!("{line}"),
        };
        let same = |(a, b): (&str, &str)| a == "+" || a == b;
        let matches = theirs
            && filter.split('/').count() == topic.split('/').count()
            && filter.split('/').zip(topic.split('/')).all(same);
        match words[1] {
            "deny" if matches => return false,
            kind if matches => granted |= kind == access || kind == "readwrite",
            _ => {}
        }
    }
    granted
}

#[test]
fn the_access_rules_are_those_of_the_topic_grammar() {
    let names: [Name; 3] = ["till-1", "till-2", GATEWAY].map(|name| name.parse().unwrap());
    let channels = [Channel::Join, Channel::Welcome, Channel::Up, Channel::Down];
    let mut topics: Vec<String> =
        names.iter().flat_map(|name| channels.map(|channel| topic::topic(name, channel))).collect();
    topics.extend([HEALTH, "$SYS/broker/uptime", "palmgate/1/till-1", "other"].map(Into::into));
    for client in ["till-1", "till-2", GATEWAY] {
        for topic in &topics {
            let writes = topic::may_publish(client, topic);
            assert_eq!(grants(client, "write", topic), writes, "{client} writes {topic}");
            // The gateway subscribes with a wildcard, terminals to the topic itself.
            let reads = match topic::parse(topic) {
                Some((name, channel)) if client == GATEWAY => {
                    name.as_str() != GATEWAY && channel.from_terminal()
                }
                _ => topic::may_subscribe(client, topic),
            };
            assert_eq!(grants(client, "read", topic), reads, "{client} reads {topic}");
        }
    }
}

#[test]
fn the_configuration_has_the_bounds_that_matter() {
    let settings: Vec<&str> =
        CONFIGURATION.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    for needed in [
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        "set_tcp_nodelay true",
        "persistence false",
        "retain_available false",
        "max_qos 1",
        &format!("message_size_limit {MAX_PAYLOAD_BYTES}"),
        &format!("max_packet_size {}", MAX_PAYLOAD_BYTES + 256),
    ] {
        assert!(settings.contains(&needed), "{needed}");
    }
    let listeners = settings.iter().filter(|line| line.starts_with("listener")).count();
    assert_eq!(listeners, 1);
}
