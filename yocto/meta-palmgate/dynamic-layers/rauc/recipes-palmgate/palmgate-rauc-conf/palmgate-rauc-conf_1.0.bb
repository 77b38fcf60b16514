SUMMARY = "Which roots a box has, and whose updates it takes"
DESCRIPTION = "RAUC's system configuration and the certificates of those who may sign an update."
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/files/common-licenses/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

# No update below this version is installed, whoever signed it: raise it with a release that mends a
# security fault.
PALMGATE_VERSION_FLOOR ??= "0.1.0"

SRC_URI = " \
    file://${RAUC_KEYRING_FILE} \
    file://system.conf \
"
S = "${UNPACKDIR}"

PACKAGE_ARCH = "${MACHINE_ARCH}"

do_install() {
    install -D -m 0644 ${S}/${RAUC_KEYRING_FILE} ${D}${sysconfdir}/rauc/keyring.pem
    install -D -m 0644 ${S}/system.conf ${D}${sysconfdir}/rauc/system.conf
    sed -i -e 's/@MACHINE@/${MACHINE}/' -e 's/@VERSION_FLOOR@/${PALMGATE_VERSION_FLOOR}/' \
        ${D}${sysconfdir}/rauc/system.conf
}

RPROVIDES:${PN} += "virtual-rauc-conf"
