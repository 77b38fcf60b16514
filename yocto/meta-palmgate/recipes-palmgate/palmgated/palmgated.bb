SUMMARY = "Palmgate gateway: recognises consenting shoppers' palms on the premises"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The layer lies in the source tree that it builds.
inherit externalsrc cargo systemd useradd
EXTERNALSRC = "${@os.path.abspath(os.path.join(d.getVar('THISDIR'), '../../../..'))}"

# Crates are taken from CARGO_HOME of the builder: run `cargo fetch --locked` in the tree first.
CARGO_DISABLE_BITBAKE_VENDORING = "1"
CARGO_BUILD_FLAGS += "--package palmgate-gateway --offline"

SYSTEMD_SERVICE:${PN} = "palmgated.service"
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --home-dir /var/lib/palmgate --no-create-home --shell /sbin/nologin palmgate"

do_install:append() {
    install -D -m 0644 ${S}/systemd/palmgated.service ${D}${systemd_system_unitdir}/palmgated.service
    install -D -m 0640 ${S}/config/palmgated.toml ${D}${sysconfdir}/palmgate/palmgated.toml
}
CONFFILES:${PN} = "${sysconfdir}/palmgate/palmgated.toml"
