SUMMARY = "Gateway that recognises consenting shoppers' palms on the premises"
DESCRIPTION = "The daemon palmgated of a store: it keeps references sealed, decides by a law pack, works with the internet cut and proves erasure. And the command palmgate for those who run it."
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The crates that Cargo.lock pins, each with its checksum; made by `cargo xtask yocto --write`.
require palmgate-crates.inc

# The layer lies in the source tree that it builds.
inherit externalsrc
EXTERNALSRC = "${@os.path.abspath(os.path.join(d.getVar('FILE_DIRNAME'), '../../../..'))}"

inherit cargo pkgconfig systemd useradd

PACKAGECONFIG ??= ""
PACKAGECONFIG[tpm] = ",,tpm2-tss,libtss2-tcti-device"
CARGO_BUILD_FLAGS:append = " --package palmgate-gateway --package palmgate-matcher --package palmgate-cli"
CARGO_BUILD_FLAGS:append = " ${@bb.utils.contains('PACKAGECONFIG', 'tpm', '--features palmgate-gateway/tpm,palmgate-cli/tpm', '', d)}"

do_install:append() {
    install -D -m 0644 ${S}/systemd/palmgated.service ${D}${systemd_system_unitdir}/palmgated.service
    install -D -m 0644 ${S}/systemd/palmgate-matcher.service ${D}${systemd_system_unitdir}/palmgate-matcher.service
    install -D -m 0644 ${S}/systemd/palmgate-matcher.socket ${D}${systemd_system_unitdir}/palmgate-matcher.socket
    install -D -m 0640 -g palmgate ${S}/config/palmgated.toml ${D}${sysconfdir}/palmgate/palmgated.toml
    chown root:palmgate ${D}${sysconfdir}/palmgate
    chmod 0750 ${D}${sysconfdir}/palmgate
    # A store's box has real terminals.
    rm -f ${D}${bindir}/palmgate-simulated-terminal
}

SYSTEMD_SERVICE:${PN} = "palmgated.service palmgate-matcher.socket palmgate-matcher.service"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --home-dir ${localstatedir}/lib/palmgate --no-create-home --shell /sbin/nologin --user-group palmgate"

PACKAGE_BEFORE_PN = "${PN}-cli"
FILES:${PN}-cli += "${bindir}/palmgate"
RRECOMMENDS:${PN} = "${PN}-cli"
CONFFILES:${PN} = "${sysconfdir}/palmgate/palmgated.toml"
