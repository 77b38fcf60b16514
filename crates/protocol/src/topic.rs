//! The MQTT topic grammar: `palmgate/1/{terminal}/{channel}`.
//!
//! A terminal may write `join` and `up` and read `welcome` and `down` under its own name; the
//! gateway has the other direction. The broker learns names, sizes and times, nothing else.

use crate::Name;

/// What a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Terminal to gateway: an MLS `KeyPackage` that asks to join or rejoin.
    Join,
    /// Gateway to terminal: the MLS Welcome that answers it.
    Welcome,
    /// Terminal to gateway: MLS messages.
    Up,
    /// Gateway to terminal: MLS messages.
    Down,
}

impl Channel {
    const ALL: [Self; 4] = [Self::Join, Self::Welcome, Self::Up, Self::Down];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Welcome => "welcome",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// Whether terminals write it (and the gateway reads it).
    pub const fn from_terminal(self) -> bool {
        matches!(self, Self::Join | Self::Up)
    }
}

const PREFIX: &str = "palmgate/1/";
/// The name that the gateway's own certificate carries; no terminal can have it.
pub const GATEWAY: &str = "gateway";
/// The name under which the gateway tries the broker as a terminal would; no terminal can have it.
pub const PROBE: &str = "probe";
/// Where the gateway writes and reads its own broker health probes.
pub const HEALTH: &str = "palmgate/1/gateway/health";

/// The topic of one terminal's channel.
pub fn topic(terminal: &Name, channel: Channel) -> String {
    format!("{PREFIX}{terminal}/{}", channel.as_str())
}

/// The filter with which the gateway reads one channel of every terminal.
pub fn gateway_filter(channel: Channel) -> String {
    format!("{PREFIX}+/{}", channel.as_str())
}

/// Takes a topic apart; `None` when it is not one of ours.
pub fn parse(topic: &str) -> Option<(Name, Channel)> {
    let (name, channel) = topic.strip_prefix(PREFIX)?.split_once('/')?;
    let channel = Channel::ALL.into_iter().find(|candidate| candidate.as_str() == channel)?;
    Some((name.parse().ok()?, channel))
}

/// Whether the holder of a certificate with common name `client` may publish to `topic`.
pub fn may_publish(client: &str, topic: &str) -> bool {
    if client == GATEWAY && topic == HEALTH {
        return true;
    }
    parse(topic).is_some_and(|(name, channel)| {
        name.as_str() != GATEWAY
            && if client == GATEWAY {
                !channel.from_terminal()
            } else {
                channel.from_terminal() && name.as_str() == client
            }
    })
}

/// Whether the holder of a certificate with common name `client` may subscribe to `filter`.
pub fn may_subscribe(client: &str, filter: &str) -> bool {
    if client == GATEWAY {
        let own = [gateway_filter(Channel::Join), gateway_filter(Channel::Up)];
        return filter == HEALTH || own.iter().any(|allowed| allowed == filter);
    }
    parse(filter).is_some_and(|(name, channel)| {
        name.as_str() != GATEWAY && !channel.from_terminal() && name.as_str() == client
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_reaches_its_own_topics_only() {
        let till: Name = "till-1".parse().unwrap();
        for channel in Channel::ALL {
            let own = topic(&till, channel);
            assert_eq!(parse(&own), Some((till.clone(), channel)));
            assert_eq!(may_publish("till-1", &own), channel.from_terminal());
            assert_eq!(may_subscribe("till-1", &own), !channel.from_terminal());
            assert!(!may_publish("till-2", &own) && !may_subscribe("till-2", &own));
            assert_eq!(may_publish(GATEWAY, &own), !channel.from_terminal());
        }
        for filter in
            ["#", "+/#", "palmgate/#", "palmgate/1/+/down", "palmgate/1/till-1/#", "$SYS/#", HEALTH]
        {
            assert!(!may_subscribe("till-1", filter), "{filter}");
        }
        assert!(may_subscribe(GATEWAY, "palmgate/1/+/up") && !may_subscribe(GATEWAY, "#"));
        assert!(may_publish(GATEWAY, HEALTH) && !may_publish("till-1", HEALTH));
    }
}
