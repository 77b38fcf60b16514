//! The packs that are built in, so that the gateway works without any configuration.

use super::LayerSource;

pub(super) const SCHEMA: &str = include_str!("../../../../config/packs/schema.cedarschema");
pub(super) const ACTS: &str = include_str!("../../../../config/packs/acts.toml");

macro_rules! layers {
    ($($name:literal: [$($file:literal),*];)*) => {
        /// The layers that are built in.
        pub const EMBEDDED_LAYERS: &[&str] = &[$($name),*];

        /// A layer that is built in, by name.
        pub fn embedded_layer(name: &str) -> Option<LayerSource> {
            let files: &[(&str, &str)] = match name {
                $($name => &[$((
                    $file,
                    include_str!(concat!("../../../../config/packs/", $name, "/", $file)),
                )),*],)*
                _ => return None,
            };
            Some(LayerSource::new(name, files.iter().copied()))
        }
    };
}

layers! {
    "eu-gdpr": ["pack.toml", "rules.cedar", "office.cedar"];
    "fr-cnil": ["pack.toml", "rules.cedar"];
    "us-il": ["pack.toml", "rules.cedar"];
    "us-tx": ["pack.toml", "rules.cedar"];
    "us-nyc": ["pack.toml", "rules.cedar"];
}
