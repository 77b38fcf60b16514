use crate::TerminalError;
use palmgate_protocol::{Name, Secret};
use palmgate_seal::pairing::PairingCode;
use reqwest::Url;
use std::str::FromStr;

const SCHEME: &str = "palmgate";

/// All that a device needs to be paired, as the QR code that the gateway shows carries it:
/// `palmgate://NAME@HOST:PORT/CODE`. Not printable: it carries the code.
///
/// ```
/// use palmgate_terminal::Invitation;
///
/// let scanned = "palmgate://till-3@box.store.example:8443/0123-4567-89AB-CDEF-GHJK-MNPQ";
/// let invitation: Invitation = scanned.parse()?;
/// assert_eq!(invitation.name().as_str(), "till-3");
/// assert_eq!(invitation.gateway_url(), "https://box.store.example:8443");
/// # Ok::<(), palmgate_terminal::TerminalError>(())
/// ```
pub struct Invitation {
    name: Name,
    host: String,
    port: u16,
    code: PairingCode,
}

impl Invitation {
    /// An invitation for the terminal `name` to the gateway at this host and port.
    ///
    /// # Errors
    /// [`TerminalError::Address`] when the host is none.
    pub fn new(
        name: Name,
        host: &str,
        port: u16,
        code: PairingCode,
    ) -> Result<Self, TerminalError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let plain = format!("{SCHEME}://{host}:{port}");
        let wrong = |why: String| TerminalError::Address { given: host.clone(), why };
        Url::parse(&plain).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { name, host, port, code })
    }

    /// The terminal's name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Where the gateway takes pairing requests.
    pub fn gateway_url(&self) -> String {
        format!("https://{}:{}", self.host, self.port)
    }

    /// The one-time code.
    pub const fn code(&self) -> &PairingCode {
        &self.code
    }

    /// What the QR code carries.
    pub fn text(&self) -> Secret<String> {
        let Self { name, host, port, code } = self;
        Secret::new(format!("{SCHEME}://{name}@{host}:{port}/{}", code.text().expose()))
    }
}

impl FromStr for Invitation {
    type Err = TerminalError;

    /// Reads what was scanned; the error repeats none of it.
    fn from_str(text: &str) -> Result<Self, TerminalError> {
        let wrong = |why: &str| TerminalError::Address {
            given: "what was scanned".into(),
            why: why.into(),
        };
        let url = Url::parse(text).map_err(|_| wrong("it is no invitation of a gateway"))?;
        if url.scheme() != SCHEME || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it is no invitation of a gateway"));
        }
        let name = url.username().parse().map_err(|_| wrong("it names no terminal"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("it names no host"))?.to_owned();
        let port = url.port().ok_or_else(|| wrong("it names no port"))?;
        let code = PairingCode::parse(url.path().trim_start_matches('/'));
        let code = code.map_err(|_| wrong("it has no pairing code"))?;
        Ok(Self { name, host, port, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_read_as_it_is_shown() {
        for (host, url) in [
            ("box.store.example", "https://box.store.example:8443"),
            ("10.0.0.2", "https://10.0.0.2:8443"),
            ("fd00::2", "https://[fd00::2]:8443"),
        ] {
            let code = PairingCode::parse("0123-4567-89AB-CDEF-GHJK-MNPQ").unwrap();
            let shown = Invitation::new("till-3".parse().unwrap(), host, 8443, code).unwrap();
            let read: Invitation = shown.text().expose().parse().unwrap();
            assert_eq!((read.name().as_str(), read.gateway_url().as_str()), ("till-3", url));
            assert_eq!(read.code().secret(), shown.code().secret());
        }
    }

    #[test]
    fn what_is_no_invitation_is_refused_without_repeating_it() {
        let code = "0123-4567-89AB-CDEF-GHJK-MNPQ";
        for bad in [
            code.to_owned(),
            format!("https://till-3@box:8443/{code}"),
            format!("palmgate://box:8443/{code}"),
            format!("palmgate://till-3@box/{code}"),
            format!("palmgate://till-3@:8443/{code}"),
            format!("palmgate://till-3@box:8443/{code}?x=1"),
            "palmgate://till-3@box:8443/1234".to_owned(),
        ] {
            let error = bad.parse::<Invitation>().err().unwrap().to_string();
            assert!(!error.contains("0123"), "{error}");
        }
    }
}
