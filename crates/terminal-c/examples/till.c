/* A till with a palm reader: paired by what the gateway's QR code says, then it takes payments.
 *
 *   till DIRECTORY pair INVITATION
 *   till DIRECTORY enrol PICTURE PICTURE PICTURE     three captures of the right hand
 *   till DIRECTORY pay CENTS PICTURE [CLAIM]         with the claim token that was scanned
 *
 * Beside each picture lies what near infrared showed at the same moment, PICTURE.nir: a visible
 * picture alone does not pay.
 *
 * Ends with 0 when it was done, 2 when the answer is no, and 1 when there is none.
 * SPDX-License-Identifier: Apache-2.0 */

#include "palmgate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer than any answer takes to a scan; a person waits. */
#define PATIENCE_MS 15000
#define CAPTURES 3
#define BANDS 2

struct bytes {
    unsigned char *data;
    size_t length;
};

static int failed(const char *doing, palmgate_status status) {
    char why[512];
    palmgate_last_error(why, sizeof why);
    fprintf(stderr, "%s: status %d: %s\n", doing, (int)status, why);
    return 1;
}

static struct bytes read_file(const char *path) {
    struct bytes bytes = {NULL, 0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    bytes.length = (size_t)ftell(file);
    bytes.data = malloc(bytes.length + 1);
    rewind(file);
    if (bytes.data == NULL || fread(bytes.data, 1, bytes.length, file) != bytes.length) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return bytes;
}

/* One capture: the visible frame, and the near-infrared one of the same moment. */
static void read_capture(const char *path, palmgate_frame frames[BANDS]) {
    char near[4096];
    size_t band;
    snprintf(near, sizeof near, "%s.nir", path);
    for (band = 0; band < BANDS; band++) {
        struct bytes file = read_file(band == 0 ? path : near);
        frames[band].band = band == 0 ? PALMGATE_BAND_VISIBLE : PALMGATE_BAND_NEAR_INFRARED;
        frames[band].picture = file.data;
        frames[band].length = file.length;
        frames[band].view = PALMGATE_VIEW_HAND;
    }
}

static void free_capture(palmgate_frame frames[BANDS]) {
    size_t band;
    for (band = 0; band < BANDS; band++)
        free((void *)frames[band].picture);
}

/* Fresh for every payment: the assertion repeats it. */
static void random_bytes(uint8_t *into, size_t length) {
    FILE *file = fopen("/dev/urandom", "rb");
    if (file == NULL || fread(into, 1, length, file) != length) {
        perror("/dev/urandom");
        exit(1);
    }
    fclose(file);
}

/* What the screen shows. Tokens and pseudonyms go to the point of sale, never to a screen. */
static int show(const palmgate_answer *answer) {
    const uint8_t *text = NULL;
    size_t length = 0;
    switch (palmgate_answer_outcome(answer)) {
    case PALMGATE_OUTCOME_ACCEPTED:
        if (palmgate_answer_get(answer, PALMGATE_FIELD_ASSERTION, 0, &text, &length) ==
            PALMGATE_STATUS_OK)
            printf("paid, with an assertion of %zu bytes\n", length);
        else
            printf("welcome\n");
        return 0;
    case PALMGATE_OUTCOME_ENROLLED:
        printf("enrolled\n");
        return 0;
    case PALMGATE_OUTCOME_RETRY:
        if (palmgate_answer_get(answer, PALMGATE_FIELD_PROMPT, 0, &text, &length) ==
            PALMGATE_STATUS_OK)
            printf("%.*s\n", (int)length, (const char *)text);
        return 2;
    case PALMGATE_OUTCOME_REFUSED:
        if (palmgate_answer_get(answer, PALMGATE_FIELD_REASON, 0, &text, &length) ==
            PALMGATE_STATUS_OK)
            printf("refused: %.*s\n", (int)length, (const char *)text);
        return 2;
    default:
        printf("not recognised: please use another way\n");
        return 2;
    }
}

static int pay(const palmgate_terminal *terminal, int count, char **arguments) {
    struct bytes claim = {NULL, 0};
    uint8_t challenge[16];
    palmgate_frame frames[BANDS];
    palmgate_payment payment;
    palmgate_scan_request scan;
    palmgate_answer *answer = NULL;
    palmgate_status status;
    int code;

    /* Before the capture: a sensor that signs its verdict signs the challenge with it. */
    status = palmgate_challenge(terminal, challenge);
    if (status != PALMGATE_STATUS_OK)
        return failed("challenge", status);
    read_capture(arguments[1], frames);
    if (count > 2)
        claim = read_file(arguments[2]);
    memset(&payment, 0, sizeof payment);
    payment.minor_units = strtoull(arguments[0], NULL, 10);
    payment.currency = "EUR";
    payment.payee = "Example till";
    random_bytes(payment.nonce, sizeof payment.nonce);

    memset(&scan, 0, sizeof scan);
    scan.intent = PALMGATE_INTENT_PAY;
    scan.frames = frames;
    scan.frame_count = BANDS;
    scan.payment = &payment;
    scan.claim = claim.data;
    scan.claim_length = claim.length;
    scan.challenge = challenge;

    status = palmgate_scan(terminal, &scan, &answer);
    free_capture(frames);
    free(claim.data);
    if (status != PALMGATE_STATUS_OK)
        return failed("pay", status);
    code = show(answer);
    palmgate_answer_free(answer);
    return code;
}

static int enrol(const palmgate_terminal *terminal, char **pictures) {
    palmgate_frame frames[CAPTURES][BANDS];
    palmgate_capture captures[CAPTURES];
    /* Two acts on two screens: the notice was read, and then it was agreed to. */
    palmgate_consent consent = {PALMGATE_PURPOSE_PAY, "fr-cnil-1", "fr", true};
    palmgate_enrolment enrolment;
    palmgate_answer *answer = NULL;
    palmgate_status status;
    size_t at;
    int code;

    for (at = 0; at < CAPTURES; at++) {
        read_capture(pictures[at], frames[at]);
        captures[at].hand = PALMGATE_HAND_RIGHT;
        captures[at].frames = frames[at];
        captures[at].frame_count = BANDS;
    }
    memset(&enrolment, 0, sizeof enrolment);
    enrolment.captures = captures;
    enrolment.capture_count = CAPTURES;
    enrolment.consents = &consent;
    enrolment.consent_count = 1;
    enrolment.age = PALMGATE_AGE_ADULT;
    enrolment.card_token = "tok-of-the-payment-provider";
    status = palmgate_enrol(terminal, &enrolment, &answer);
    for (at = 0; at < CAPTURES; at++)
        free_capture(frames[at]);
    if (status != PALMGATE_STATUS_OK)
        return failed("enrol", status);
    code = show(answer);
    palmgate_answer_free(answer);
    return code;
}

int main(int count, char **arguments) {
    palmgate_terminal *terminal = NULL;
    palmgate_status status;
    int code = 1;

    if (count == 4 && strcmp(arguments[2], "pair") == 0) {
        status = palmgate_pair_invited(arguments[3], arguments[1]);
        if (status != PALMGATE_STATUS_OK)
            return failed("pair", status);
        printf("paired\n");
        return 0;
    }
    if (!((count == 5 || count == 6) && strcmp(arguments[2], "pay") == 0) &&
        !(count == 3 + CAPTURES && strcmp(arguments[2], "enrol") == 0)) {
        fprintf(stderr, "usage: till DIRECTORY pair INVITATION | enrol PICTURE PICTURE PICTURE | "
                        "pay CENTS PICTURE [CLAIM]\n");
        return 1;
    }
    status = palmgate_connect(arguments[1], &terminal);
    if (status != PALMGATE_STATUS_OK)
        return failed("connect", status);
    status = palmgate_ready(terminal, PATIENCE_MS);
    if (status != PALMGATE_STATUS_OK)
        code = failed("ready", status);
    else if (strcmp(arguments[2], "enrol") == 0)
        code = enrol(terminal, arguments + 3);
    else
        code = pay(terminal, count - 3, arguments + 3);
    palmgate_close(terminal);
    return code;
}
