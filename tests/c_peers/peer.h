// What the generated types.c gives to peer.c, and the functions it uses for that.
#ifndef PEER_H
#define PEER_H

#include <stdio.h>

#include "dds/dds.h"

// The QoS documented beside the types.
enum kind { ANNOUNCEMENT, STATUS, MESSAGE, SERVICE, SERVICE_STATUS };

struct type {
  const char *name;  // module.Struct
  const dds_topic_descriptor_t *descriptor;
  enum kind kind;
  void (*build)(void *sample, int variant);         // a zeroed sample, from literals
  void (*show)(FILE *out, const void *sample);      // as a JSON object
};

extern const struct type types[];
extern const size_t type_count;

// Which of these is called depends on the type that idlc gave the member.
#define show_value(out, value) \
  _Generic((value), bool: show_boolean, float: show_real, double: show_real, int32_t: show_signed, \
           int64_t: show_signed, uint32_t: show_unsigned, uint64_t: show_unsigned, char *: show_text)(out, value)

void show_boolean(FILE *out, bool value);
void show_real(FILE *out, double value);
void show_signed(FILE *out, int64_t value);
void show_unsigned(FILE *out, uint64_t value);
void show_text(FILE *out, const char *value);

// `unit`, `times` times over, for a sample to own.
char *text(const char *unit, size_t times);

// Room for `length` elements of a sequence, for a sample to own.
#define make_room(sequence, length) \
  ((sequence)->_buffer = dds_alloc((length) * sizeof *(sequence)->_buffer), \
   (sequence)->_maximum = (sequence)->_length = (length), (sequence)->_release = true)

#endif
