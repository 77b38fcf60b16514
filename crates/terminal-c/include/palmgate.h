/* Palmgate for makers of palm terminals, in C. SPDX-License-Identifier: Apache-2.0 */

#ifndef PALMGATE_H
#define PALMGATE_H

/* Made from crates/terminal-c/src by cbindgen: do not change it by hand. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// How a call ended. `palmgate_last_error` has the sentence for a person.
typedef enum palmgate_status {
  // It was done.
  PALMGATE_STATUS_OK = 0,
  // The caller's fault: a NULL, a text that is not UTF-8, a number out of range, a limit.
  PALMGATE_STATUS_MISUSE = 1,
  // The state directory is not usable, or not this terminal's.
  PALMGATE_STATUS_STATE_DIRECTORY = 2,
  // No way to the broker; the terminal keeps trying by itself.
  PALMGATE_STATUS_OFFLINE = 3,
  // Who answered is not the gateway that the pairing code names. The code was not sent.
  PALMGATE_STATUS_NOT_THE_GATEWAY = 4,
  // The gateway refused to pair: code or name.
  PALMGATE_STATUS_PAIRING_REFUSED = 5,
  // The other side is of another version.
  PALMGATE_STATUS_INCOMPATIBLE = 6,
  // The gateway has not let the terminal in.
  PALMGATE_STATUS_NOT_ADMITTED = 7,
  // The gateway is overloaded and decided nothing: use another way.
  PALMGATE_STATUS_BUSY = 8,
  // No answer in time: use another way.
  PALMGATE_STATUS_TOO_LATE = 9,
  // Too many requests wait already.
  PALMGATE_STATUS_TOO_MANY = 10,
  // The terminal's keys cannot be used.
  PALMGATE_STATUS_KEYS = 11,
  // The terminal was closed.
  PALMGATE_STATUS_CLOSED = 12,
  // The answer has no such part.
  PALMGATE_STATUS_ABSENT = 13,
  // A defect of this library: report it.
  PALMGATE_STATUS_DEFECT = 14,
  // The store's list of terminals does not hold: no picture was sent.
  PALMGATE_STATUS_ROSTER = 15,
} palmgate_status;

// How far the way to the gateway is open.
typedef enum palmgate_connected {
  // The first connection to the broker is being made.
  PALMGATE_CONNECTED_CONNECTING = 0,
  // No connection to the broker; the terminal keeps trying.
  PALMGATE_CONNECTED_OFFLINE = 1,
  // Connected to the broker; the gateway has not answered yet.
  PALMGATE_CONNECTED_JOINING = 2,
  // The gateway answers.
  PALMGATE_CONNECTED_READY = 3,
} palmgate_connected;

// What became of a request.
typedef enum palmgate_outcome {
  // Recognised, and allowed: `PSEUDONYM`, and for a payment `CARD_TOKEN` and `ASSERTION`.
  PALMGATE_OUTCOME_ACCEPTED = 0,
  // The capture was too poor: show `PROMPT` and capture again.
  PALMGATE_OUTCOME_RETRY = 1,
  // Not recognised: offer the other way.
  PALMGATE_OUTCOME_NOT_RECOGNISED = 2,
  // Not allowed, whoever it is: `REASON`; offer the other way.
  PALMGATE_OUTCOME_REFUSED = 3,
  // Enrolled: `CLAIM` tokens and consent `RECEIPT`s, by index, for the person to keep.
  PALMGATE_OUTCOME_ENROLLED = 4,
  // The person's own uses: `palmgate_answer_use`.
  PALMGATE_OUTCOME_HISTORY = 5,
  // Done as asked.
  PALMGATE_OUTCOME_DONE = 6,
  // Forgotten: one `RECEIPT`.
  PALMGATE_OUTCOME_ERASED = 7,
  // The person's data as JSON: `DOCUMENT`.
  PALMGATE_OUTCOME_EXPORTED = 8,
} palmgate_outcome;

// What a person came for.
typedef enum palmgate_intent {
  // Pay; needs `payment`.
  PALMGATE_INTENT_PAY = 0,
  // Use the loyalty account.
  PALMGATE_INTENT_LOYALTY = 1,
  // Enter.
  PALMGATE_INTENT_ENTRY = 2,
  // Enter a restricted zone as an employee; needs `zone`.
  PALMGATE_INTENT_STAFF = 3,
  // See the own uses and consents (GDPR Art. 15).
  PALMGATE_INTENT_HISTORY = 4,
  // Stop recognition until resumed (GDPR Art. 18).
  PALMGATE_INTENT_PAUSE = 5,
  // Resume recognition.
  PALMGATE_INTENT_RESUME = 6,
  // Withdraw consent for `purposes` (GDPR Art. 7(3)).
  PALMGATE_INTENT_WITHDRAW = 7,
  // Be forgotten (GDPR Art. 17).
  PALMGATE_INTENT_ERASE = 8,
  // Get a copy of everything that the store holds (GDPR Art. 15).
  PALMGATE_INTENT_EXPORT = 9,
  // Take along what was provided (GDPR Art. 20); needs `port_key`.
  PALMGATE_INTENT_PORT = 10,
  // Object to advertising (GDPR Art. 21).
  PALMGATE_INTENT_OBJECT = 11,
} palmgate_intent;

// What a palm is used for: bits of a set.
typedef enum palmgate_purpose {
  // Pay.
  PALMGATE_PURPOSE_PAY = 1,
  // Loyalty.
  PALMGATE_PURPOSE_LOYALTY = 2,
  // Entry.
  PALMGATE_PURPOSE_ENTRY = 4,
  // Staff.
  PALMGATE_PURPOSE_STAFF = 8,
  // Be recognised in the tenant's other stores.
  PALMGATE_PURPOSE_ROAMING = 16,
} palmgate_purpose;

// Which hand, as the person says it.
typedef enum palmgate_hand {
  // The left hand.
  PALMGATE_HAND_LEFT = 0,
  // The right hand.
  PALMGATE_HAND_RIGHT = 1,
} palmgate_hand;

// The light of a frame.
typedef enum palmgate_band {
  // Visible light.
  PALMGATE_BAND_VISIBLE = 0,
  // Near infrared, 850 to 940 nm.
  PALMGATE_BAND_NEAR_INFRARED = 1,
} palmgate_band;

// Whether a frame shows the hand, or what of it.
typedef enum palmgate_view {
  // The whole hand: the gateway finds the palm.
  PALMGATE_VIEW_HAND = 0,
  // The region of interest of a right palm, cut out by the terminal: a square of at least 64
  // pixels a side, fingers up.
  PALMGATE_VIEW_RIGHT_REGION = 1,
  // That of a left palm, mirrored.
  PALMGATE_VIEW_LEFT_REGION = 2,
} palmgate_view;

// Declared age.
typedef enum palmgate_age {
  // 18 or older.
  PALMGATE_AGE_ADULT = 0,
  // 15 to 17.
  PALMGATE_AGE_FROM15_TO17 = 1,
  // Under 15, with a holder of parental responsibility who agrees jointly.
  PALMGATE_AGE_UNDER15_WITH_GUARDIAN = 2,
  // Under 15, alone.
  PALMGATE_AGE_UNDER15 = 3,
} palmgate_age;

// A part of an answer.
typedef enum palmgate_field {
  // What the screen says about a poor capture, in English.
  PALMGATE_FIELD_PROMPT = 0,
  // The label of a refusal.
  PALMGATE_FIELD_REASON = 1,
  // The person under this purpose: bytes.
  PALMGATE_FIELD_PSEUDONYM = 2,
  // The payment provider's token.
  PALMGATE_FIELD_CARD_TOKEN = 3,
  // `COSE_Sign1` of the gateway over amount, currency, payee, nonce and pseudonym.
  PALMGATE_FIELD_ASSERTION = 4,
  // A receipt: JSON.
  PALMGATE_FIELD_RECEIPT = 5,
  // A person's data: JSON.
  PALMGATE_FIELD_DOCUMENT = 6,
  // A claim token: bytes for a QR code, card or phone.
  PALMGATE_FIELD_CLAIM = 7,
} palmgate_field;

// An answer; free it with `palmgate_answer_free`.
typedef struct palmgate_answer palmgate_answer;

// A connected terminal; end it with `palmgate_close`.
typedef struct palmgate_terminal palmgate_terminal;

// One picture of a hand: a PNG or JPEG file in memory, 196,608 bytes at most.
typedef struct palmgate_frame {
  // `palmgate_band`.
  uint32_t band;
  // The file's bytes.
  const uint8_t *picture;
  // How many.
  size_t length;
  // `palmgate_view`; the same in all frames of a hand.
  uint32_t view;
} palmgate_frame;

// What is paid, to whom, as it was shown before the hand was asked for.
typedef struct palmgate_payment {
  // Amount in the currency's minor unit (cents).
  uint64_t minor_units;
  // ISO 4217 code.
  const char *currency;
  // Who is paid.
  const char *payee;
  // Fresh random bytes of the point of sale, repeated in the assertion.
  uint8_t nonce[16];
} palmgate_payment;

// A hand that was presented, and what its owner showed with it. Set unused fields to 0 or NULL.
typedef struct palmgate_scan_request {
  // `palmgate_intent`.
  uint32_t intent;
  // Four frames at most.
  const struct palmgate_frame *frames;
  // How many.
  size_t frame_count;
  // The claim token that was tapped or read from a code, or NULL.
  const uint8_t *claim;
  // Its length.
  size_t claim_length;
  // The person asked to be looked up beyond this store.
  bool ask_cloud;
  // The person has just been authenticated strongly, by chip and PIN.
  bool authenticated;
  // For `PALMGATE_INTENT_PAY`.
  const struct palmgate_payment *payment;
  // For `PALMGATE_INTENT_STAFF`.
  const char *zone;
  // For `PALMGATE_INTENT_WITHDRAW`: `palmgate_purpose` bits.
  uint32_t purposes;
  // For `PALMGATE_INTENT_PORT`: 32 bytes, the person's X25519 public key.
  const uint8_t *port_key;
  // The 16 bytes of `palmgate_challenge` that the capture is about, or NULL.
  const uint8_t *challenge;
  // What the sensor signed about the frames and the challenge, or NULL.
  const uint8_t *verdict;
  // Its length.
  size_t verdict_length;
} palmgate_scan_request;

// One capture of one hand.
typedef struct palmgate_capture {
  // `palmgate_hand`.
  uint32_t hand;
  // Four frames at most.
  const struct palmgate_frame *frames;
  // How many.
  size_t frame_count;
} palmgate_capture;

// The person read a notice about one purpose and confirmed separately.
typedef struct palmgate_consent {
  // One `palmgate_purpose` bit.
  uint32_t purpose;
  // The version of the notice that was shown.
  const char *notice;
  // The language it was shown in (BCP 47).
  const char *language;
  // The separate confirmation was made.
  bool confirmed;
} palmgate_consent;

// Everything that an enrolment needs.
typedef struct palmgate_enrolment {
  // One to three captures of each hand.
  const struct palmgate_capture *captures;
  // How many.
  size_t capture_count;
  // One entry for each purpose that the person agreed to.
  const struct palmgate_consent *consents;
  // How many.
  size_t consent_count;
  // `palmgate_age`.
  uint32_t age;
  // The payment provider's token for the card, never a card number; or NULL.
  const char *card_token;
  // Phone number in E.164 form, for notices; or NULL.
  const char *phone;
  // The 16 bytes of `palmgate_challenge` that the verdict is about, or NULL.
  const uint8_t *challenge;
  // What the sensor signed about all frames and the challenge, or NULL.
  const uint8_t *verdict;
  // Its length.
  size_t verdict_length;
} palmgate_enrolment;

// One use of the palm, as the person sees it. The text lives as long as the answer.
typedef struct palmgate_use {
  // When, in milliseconds since 1970-01-01T00:00:00Z.
  int64_t at_ms;
  // One `palmgate_purpose` bit.
  uint32_t purpose;
  // Where: the terminal's name.
  const char *terminal;
} palmgate_use;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The sentence about the last call of this thread that failed, in English. Writes at most `length`
// bytes, the last of them NUL, and returns how many bytes the whole has without it.
//
// # Safety
// `buffer` is NULL or has room for `length` bytes.
size_t palmgate_last_error(char *buffer, size_t length);

// Pairs this device by what the gateway's QR code says, and keeps its key and certificate in
// `directory`, which is made with mode 0700. Nothing is kept when it fails.
//
// # Safety
// Both texts are NULL or end with NUL.
enum palmgate_status palmgate_pair_invited(const char *invitation, const char *directory);

// Pairs this device as `name` with the code that a person typed. `gateway_url` is
// `https://HOST:PORT`.
//
// # Safety
// All texts are NULL or end with NUL.
enum palmgate_status palmgate_pair(const char *gateway_url,
                                   const char *code,
                                   const char *name,
                                   const char *directory);

// Starts to connect the terminal that was paired in `directory`, and returns at once. The terminal
// keeps itself connected, and renews its certificate, until it is closed.
//
// # Safety
// `directory` is NULL or ends with NUL; `terminal` is NULL or may be written.
enum palmgate_status palmgate_connect(const char *directory, struct palmgate_terminal **terminal);

// Waits until the gateway answers, `milliseconds` at most.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, and not closed.
enum palmgate_status palmgate_ready(const struct palmgate_terminal *terminal,
                                    uint32_t milliseconds);

// How far the way to the gateway is open now, for a lamp or a screen.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, and not closed.
enum palmgate_connected palmgate_connection(const struct palmgate_terminal *terminal);

// The number and the SHA-256 (32 bytes) of the store's list of terminals, as `palmgate terminal list`
// shows them on the box. `PALMGATE_STATUS_ABSENT` before the gateway has answered, and where it is of
// a version before such lists; `PALMGATE_STATUS_ROSTER` when the list does not hold.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, and not closed; `number` is NULL or may be written;
// `hash` is NULL or has room for 32 bytes.
enum palmgate_status palmgate_roster(const struct palmgate_terminal *terminal,
                                     uint64_t *number,
                                     uint8_t *hash);

// Ends the connection and frees the terminal; NULL is allowed.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, not closed before and in use by no other call.
void palmgate_close(struct palmgate_terminal *terminal);

// Sends a ping through broker and seal, and gives its way there and back in microseconds.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, and not closed; `microseconds` is NULL or may be
// written.
enum palmgate_status palmgate_ping(const struct palmgate_terminal *terminal,
                                   uint64_t *microseconds);

// Gives the 16 random bytes of the gateway for a capture that is about to be taken: have the sensor
// sign them with its verdict, and name them in the scan. They are good for one scan and, as a rule,
// for half a minute at least. A scan without any is given some by itself.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, and not closed; `challenge` is NULL or 16 bytes that
// may be written.
enum palmgate_status palmgate_challenge(const struct palmgate_terminal *terminal,
                                        uint8_t *challenge);

// Asks to recognise a hand for what its owner came for; five seconds at most, fifteen for a right.
//
// # Safety
// `terminal` is NULL or of `palmgate_connect`, and not closed; every pointer in `scan` is NULL or
// points to what its description says; `answer` is NULL or may be written.
enum palmgate_status palmgate_scan(const struct palmgate_terminal *terminal,
                                   const struct palmgate_scan_request *scan,
                                   struct palmgate_answer **answer);

// Asks to enrol a person who agreed, purpose by purpose, on this terminal's screen; fifteen seconds
// at most.
//
// # Safety
// As `palmgate_scan`.
enum palmgate_status palmgate_enrol(const struct palmgate_terminal *terminal,
                                    const struct palmgate_enrolment *enrolment,
                                    struct palmgate_answer **answer);

// What became of the request; `PALMGATE_OUTCOME_REFUSED` for NULL.
//
// # Safety
// `answer` is NULL or of this library, and not freed.
enum palmgate_outcome palmgate_answer_outcome(const struct palmgate_answer *answer);

// A part of an answer, a `palmgate_field`; `index` counts those that come several times. The bytes
// end with the answer, and have no NUL after them.
//
// # Safety
// `answer` is NULL or of this library, and not freed; `bytes` and `length` are NULL or may be
// written.
enum palmgate_status palmgate_answer_get(const struct palmgate_answer *answer,
                                         uint32_t field,
                                         size_t index,
                                         const uint8_t **bytes,
                                         size_t *length);

// A use of the palm in the answer to `PALMGATE_INTENT_HISTORY`, newest first.
//
// # Safety
// `answer` is NULL or of this library, and not freed; `use_` is NULL or may be written.
enum palmgate_status palmgate_answer_use(const struct palmgate_answer *answer,
                                         size_t index,
                                         struct palmgate_use *use_);

// Whether a recognised person objects to advertising: the account must not be used for it.
//
// # Safety
// `answer` is NULL or of this library, and not freed.
bool palmgate_answer_objected(const struct palmgate_answer *answer);

// Frees an answer; NULL is allowed.
//
// # Safety
// `answer` is NULL or of this library, not freed before and in use by no other call.
void palmgate_answer_free(struct palmgate_answer *answer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PALMGATE_H */
