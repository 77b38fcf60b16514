SUMMARY = "Settings of a machine that holds palms"
DESCRIPTION = "The state's partition, logs in memory, no swap, no core dumps."
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/files/common-licenses/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

SRC_URI = " \
    file://journald.conf \
    file://sysctl.conf \
    file://var-lib-palmgate.mount \
"
S = "${UNPACKDIR}"

inherit allarch systemd

do_install() {
    install -D -m 0644 ${S}/journald.conf ${D}${sysconfdir}/systemd/journald.conf.d/palmgate.conf
    install -D -m 0644 ${S}/sysctl.conf ${D}${sysconfdir}/sysctl.d/palmgate.conf
    # No swap, whatever somebody lists.
    install -d ${D}${sysconfdir}/systemd/system
    ln -s /dev/null ${D}${sysconfdir}/systemd/system/swap.target
    install -D -m 0644 ${S}/var-lib-palmgate.mount ${D}${systemd_system_unitdir}/var-lib-palmgate.mount
    install -d ${D}${localstatedir}/lib/palmgate
}

SYSTEMD_SERVICE:${PN} = "var-lib-palmgate.mount"
FILES:${PN} += "${localstatedir}/lib/palmgate"
