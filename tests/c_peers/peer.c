// A peer made from the IDL alone. For every type module.T it reads the topic "module/T/in" and
// writes to "module/T/out".
//
//   peer DOMAIN
//
// A sample it reads is shown on stdout, member by member as C sees them, and written back; a disposed instance is
// shown. Commands on stdin, one a line: "write module.T VARIANT" and "dispose module.T VARIANT", of samples
// built from C's own literals, and "await module.T 0", which shows "matched" once both ends of the type have their
// counterparts: what is written best effort to a reader that does not know its writer yet is lost. The end of stdin ends
// it. It exits with 1, and a reason on stderr, when anything fails.

#include "peer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE DDS_SECS(20)

struct end {
  const struct type *type;
  dds_entity_t reader, writer;
};

static dds_entity_t participant;
static struct end *ends;

static dds_return_t checked(dds_return_t result, const char *doing) {
  if (result < 0) {
    fprintf(stderr, "%s: %s\n", doing, dds_strretcode(result));
    exit(1);
  }
  return result;
}

void show_boolean(FILE *out, bool value) { fputs(value ? "true" : "false", out); }
void show_real(FILE *out, double value) { fprintf(out, "%.17g", value); }
void show_signed(FILE *out, int64_t value) { fprintf(out, "%" PRId64, value); }
void show_unsigned(FILE *out, uint64_t value) { fprintf(out, "%" PRIu64, value); }

void show_text(FILE *out, const char *value) {
  if (value == NULL) {  // not a key, in a disposed instance
    fputs("null", out);
    return;
  }
  fputc('"', out);
  for (; *value != '\0'; value++) {
    if (*value == '"' || *value == '\\')
      fprintf(out, "\\%c", *value);
    else if ((unsigned char)*value < ' ')
      fprintf(out, "\\u%04x", (unsigned char)*value);
    else
      fputc(*value, out);
  }
  fputc('"', out);
}

char *text(const char *unit, size_t times) {
  size_t size = strlen(unit);
  char *made = dds_alloc(size * times + 1);
  for (size_t i = 0; i < times; i++) memcpy(made + i * size, unit, size);
  made[size * times] = '\0';
  return made;
}

static dds_qos_t *qos_of(enum kind kind) {
  dds_qos_t *qos = dds_create_qos();
  bool reliable = kind != STATUS && kind != SERVICE_STATUS;
  dds_qset_reliability(qos, reliable ? DDS_RELIABILITY_RELIABLE : DDS_RELIABILITY_BEST_EFFORT, DDS_SECS(10));
  dds_qset_durability(qos, reliable ? DDS_DURABILITY_TRANSIENT_LOCAL : DDS_DURABILITY_VOLATILE);
  dds_qset_writer_data_lifecycle(qos, false);
  switch (kind) {
    case MESSAGE:
      dds_qset_history(qos, DDS_HISTORY_KEEP_ALL, 0);
      dds_qset_durability_service(qos, 0, DDS_HISTORY_KEEP_LAST, 1, DDS_LENGTH_UNLIMITED, DDS_LENGTH_UNLIMITED,
                                  DDS_LENGTH_UNLIMITED);
      break;
    case SERVICE:
      dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 8);
      break;
    case SERVICE_STATUS:
      dds_qset_deadline(qos, DDS_SECS(2));
      dds_qset_liveliness(qos, DDS_LIVELINESS_AUTOMATIC, DDS_SECS(1));
      dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 1);
      break;
    default:
      dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 1);
  }
  return qos;
}

static dds_entity_t topic(const struct type *type, const char *direction) {
  char name[256];
  snprintf(name, sizeof name, "%s/%s", type->name, direction);
  *strchr(name, '.') = '/';  // a dot is not allowed in the name of a topic
  return checked(dds_create_topic(participant, type->descriptor, name, NULL, NULL), name);
}

static void open_end(struct end *end, const struct type *type) {
  dds_qos_t *qos = qos_of(type->kind);
  end->type = type;
  end->reader = checked(dds_create_reader(participant, topic(type, "in"), qos, NULL), "creating a reader");
  end->writer = checked(dds_create_writer(participant, topic(type, "out"), qos, NULL), "creating a writer");
  dds_delete_qos(qos);
}

static void tell(const struct end *end, const char *event, const void *sample) {
  char *line;
  size_t size;
  FILE *out = open_memstream(&line, &size);
  fprintf(out, "{\"type\":\"%s\",\"event\":\"%s\",\"value\":", end->type->name, event);
  if (sample == NULL)
    fputs("null", out);
  else
    end->type->show(out, sample);
  fputs("}\n", out);
  fclose(out);
  fwrite(line, 1, size, stdout);  // one call: two threads may tell something
  fflush(stdout);
  free(line);
}

static bool matched(const struct end *end) {
  dds_publication_matched_status_t readers;
  dds_subscription_matched_status_t writers;
  checked(dds_get_publication_matched_status(end->writer, &readers), "counting readers");
  checked(dds_get_subscription_matched_status(end->reader, &writers), "counting writers");
  return readers.current_count > 0 && writers.current_count > 0;
}

static void await_counterparts(const struct end *end) {
  dds_time_t until = dds_time() + PATIENCE;
  dds_entity_t waitset = checked(dds_create_waitset(participant), "creating a wait set");
  checked(dds_set_status_mask(end->writer, DDS_PUBLICATION_MATCHED_STATUS), "watching for readers");
  checked(dds_set_status_mask(end->reader, DDS_SUBSCRIPTION_MATCHED_STATUS), "watching for writers");
  checked(dds_waitset_attach(waitset, end->writer, 0), "watching for readers");
  checked(dds_waitset_attach(waitset, end->reader, 0), "watching for writers");
  while (!matched(end)) {
    if (dds_waitset_wait_until(waitset, NULL, 0, until) == 0) {
      fprintf(stderr, "%s: nobody reads or writes it\n", end->type->name);
      exit(1);
    }
  }
  checked(dds_delete(waitset), "deleting a wait set");
  tell(end, "matched", NULL);
}

static void take(const struct end *end) {
  void *sample = NULL;
  dds_sample_info_t info;
  while (checked(dds_take(end->reader, &sample, &info, 1, 1), "taking") > 0) {
    if (info.valid_data) {
      tell(end, "read", sample);
      checked(dds_write(end->writer, sample), "writing back");
    } else if (info.instance_state == DDS_IST_NOT_ALIVE_DISPOSED) {
      tell(end, "disposed", sample);
    }
    checked(dds_return_loan(end->reader, &sample, 1), "returning a sample");
    sample = NULL;
  }
}

static void *take_all(void *argument) {
  dds_entity_t waitset = *(dds_entity_t *)argument;
  dds_attach_t *ready = calloc(type_count + 1, sizeof *ready);
  for (bool stopped = false; !stopped;) {
    int count = checked(dds_waitset_wait(waitset, ready, type_count + 1, DDS_INFINITY), "waiting");
    for (int i = 0; i < count; i++) {
      if ((size_t)ready[i] == type_count)
        stopped = true;
      else
        take(&ends[ready[i]]);
    }
  }
  free(ready);
  return NULL;
}

static void obey(const char *line) {
  char verb[16], name[128];
  int variant;
  if (sscanf(line, "%15s %127s %d", verb, name, &variant) == 3) {
    for (size_t i = 0; i < type_count; i++) {
      const struct end *end = &ends[i];
      if (strcmp(name, end->type->name) != 0) continue;
      if (strcmp(verb, "await") == 0) {
        await_counterparts(end);
        return;
      }
      void *sample = calloc(1, end->type->descriptor->m_size);
      end->type->build(sample, variant);
      if (strcmp(verb, "write") == 0)
        checked(dds_write(end->writer, sample), "writing");
      else
        checked(dds_dispose(end->writer, sample), "disposing");
      dds_sample_free(sample, end->type->descriptor, DDS_FREE_CONTENTS);
      free(sample);
      return;
    }
  }
  fprintf(stderr, "not a command, or no such type: %s", line);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: peer DOMAIN\n");
    return 2;
  }
  participant = checked(dds_create_participant((dds_domainid_t)atoi(argv[1]), NULL, NULL), "joining the domain");
  dds_entity_t waitset = checked(dds_create_waitset(participant), "creating a wait set");
  dds_entity_t stop = checked(dds_create_guardcondition(participant), "creating a guard condition");
  checked(dds_waitset_attach(waitset, stop, (dds_attach_t)type_count), "attaching");
  ends = calloc(type_count, sizeof *ends);
  for (size_t i = 0; i < type_count; i++) {
    open_end(&ends[i], &types[i]);
    dds_entity_t arrived = checked(dds_create_readcondition(ends[i].reader, DDS_ANY_STATE), "creating a condition");
    checked(dds_waitset_attach(waitset, arrived, (dds_attach_t)i), "attaching");
  }
  pthread_t taker;
  pthread_create(&taker, NULL, take_all, &waitset);

  char line[256];
  while (fgets(line, sizeof line, stdin) != NULL) obey(line);

  checked(dds_set_guardcondition(stop, true), "stopping");
  pthread_join(taker, NULL);
  checked(dds_delete(participant), "leaving the domain");
  free(ends);
  return 0;
}
