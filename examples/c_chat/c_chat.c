// A chat from C, through the topics of idl/LlamaDDS.idl: one question, one answer.
//
// Exit status: 0 answered, 1 the server answered with an error, 2 wrong arguments, 3 no server, or none any more,
// 130 interrupted.

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "LlamaDDS.h"
#include "dds/dds.h"

enum { ANSWERED = 0, REFUSED = 1, WRONG_ARGUMENTS = 2, NO_SERVER = 3, INTERRUPTED = 130 };

static const char USAGE[] =
    "usage: c_chat [--domain N] [--model NAME] [--max-tokens N] [--timeout SECONDS] [--stream] PROMPT\n"
    "  --domain N         DDS domain of the server, 0 to 230 (0)\n"
    "  --model NAME       which model is to answer (the server's choice)\n"
    "  --max-tokens N     length of the answer at most (64)\n"
    "  --timeout SECONDS  give up when nothing is heard of a server for so long (30)\n"
    "  --stream           show the answer as it comes\n";

struct question {
  char id[64];
  char *model, *prompt;
  long domain, max_tokens, timeout;
  bool stream;
};

static void stop(int status, const char *why) {
  fprintf(stderr, "c_chat: %s\n", why);
  exit(status);
}

static dds_return_t checked(dds_return_t result, const char *doing) {
  if (result < 0) {
    fprintf(stderr, "c_chat: %s failed: %s\n", doing, dds_strretcode(result));
    exit(NO_SERVER);
  }
  return result;
}

static long number(const char *text, long lowest, long highest, const char *option) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < lowest || value > highest) {
    fprintf(stderr, "c_chat: %s must be a number from %ld to %ld, got '%s'\n", option, lowest, highest, text);
    exit(WRONG_ARGUMENTS);
  }
  return value;
}

static struct question asked(int argc, char **argv) {
  static const struct option options[] = {
      {"domain", required_argument, NULL, 'd'},  {"model", required_argument, NULL, 'm'},
      {"timeout", required_argument, NULL, 't'}, {"max-tokens", required_argument, NULL, 'n'},
      {"stream", no_argument, NULL, 's'},        {NULL, 0, NULL, 0},
  };
  struct question question = {.model = "", .max_tokens = 64, .timeout = 30};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 'd': question.domain = number(optarg, 0, 230, "--domain"); break;
      case 'm': question.model = optarg; break;
      case 't': question.timeout = number(optarg, 1, 3600, "--timeout"); break;
      case 'n': question.max_tokens = number(optarg, 1, INT32_MAX, "--max-tokens"); break;
      case 's': question.stream = true; break;
      default: fputs(USAGE, stderr); exit(WRONG_ARGUMENTS);
    }
  }
  if (optind != argc - 1) {
    fputs(USAGE, stderr);
    exit(WRONG_ARGUMENTS);
  }
  question.prompt = argv[optind];
  setlocale(LC_CTYPE, "C.UTF-8");  // text on DDS is UTF-8, whatever the terminal's is
  if (mbstowcs(NULL, question.prompt, 0) == (size_t)-1 || mbstowcs(NULL, question.model, 0) == (size_t)-1)
    stop(WRONG_ARGUMENTS, "PROMPT or --model is not UTF-8");
  snprintf(question.id, sizeof question.id, "c_chat-%ld-%" PRIx64, (long)getpid(), (uint64_t)dds_time());
  return question;
}

// Who ends without a word is missed by the server only after a lease, and its task runs on until then.
static void leave(void) { dds_delete(DDS_CYCLONEDDS_HANDLE); }

static sigset_t interrupts;

static void *await_interrupt(void *condition) {
  int number;
  sigwait(&interrupts, &number);
  dds_set_guardcondition(*(dds_entity_t *)condition, true);
  return NULL;
}

static dds_entity_t interrupt_condition(dds_entity_t participant) {
  static dds_entity_t condition;
  pthread_t thread;
  condition = checked(dds_create_guardcondition(participant), "creating a condition");
  if (pthread_create(&thread, NULL, await_interrupt, &condition) != 0) stop(NO_SERVER, "no thread can be started");
  return condition;
}

static bool is_ours(const void *sample, void *question) {
  const llama_ChatCompletionResponse *response = sample;
  return strcmp(response->request_id, ((const struct question *)question)->id) == 0;
}

// The server writes every answer to everybody: a filter keeps others' out of our history. Of ours nothing may be
// pushed out while we are busy, so the reader keeps all of it.
static dds_entity_t response_reader(dds_entity_t participant, dds_qos_t *qos, struct question *question) {
  dds_entity_t topic = checked(
      dds_create_topic(participant, &llama_ChatCompletionResponse_desc, "llama_chat_completion_response", NULL, NULL),
      "creating the topic of responses");
  struct dds_topic_filter filter = {
      .mode = DDS_TOPIC_FILTER_SAMPLE_ARG, .f.sample_arg = is_ours, .arg = question};
  checked(dds_set_topic_filter_extended(topic, &filter), "filtering responses");
  dds_qset_history(qos, DDS_HISTORY_KEEP_ALL, 0);
  return checked(dds_create_reader(participant, topic, qos, NULL), "creating the reader of responses");
}

static dds_entity_t request_writer(dds_entity_t participant, dds_qos_t *qos) {
  dds_entity_t topic = checked(
      dds_create_topic(participant, &llama_ChatCompletionRequest_desc, "llama_chat_completion_request", NULL, NULL),
      "creating the topic of requests");
  dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 8);
  return checked(dds_create_writer(participant, topic, qos, NULL), "creating the writer of requests");
}

static void ask(dds_entity_t writer, struct question *question) {
  llama_ChatMessage message = {.role = "user", .content = question->prompt};
  llama_ChatCompletionRequest request = {
      .request_id = question->id,
      .model = question->model,
      .messages = {._maximum = 1, ._length = 1, ._buffer = &message},
      .temperature = 0.0001f,  // the most likely token each time; 0 would leave it to the server
      .max_tokens = (int32_t)question->max_tokens,
      .stream = question->stream,
  };
  checked(dds_write(writer, &request), "writing the request");
}

static bool has_server(dds_entity_t writer, dds_entity_t reader) {
  dds_publication_matched_status_t reads;
  dds_subscription_matched_status_t writes;
  checked(dds_get_publication_matched_status(writer, &reads), "looking for servers");
  checked(dds_get_subscription_matched_status(reader, &writes), "looking for servers");
  return reads.current_count > 0 && writes.current_count > 0;
}

// The text of an error, which by custom is in brackets: [Error: text]
static const char *error_in(const llama_ChatCompletionResponse *response) {
  return strcmp(response->finish_reason, "error") == 0 ? response->content + strspn(response->content, "\n") : NULL;
}

// Shows what there is of the answer; true when that was all. `heard` is set when there was anything.
static bool show(dds_entity_t reader, bool *heard) {
  void *sample = NULL;
  dds_sample_info_t info;
  bool final = false;
  while (!final && checked(dds_take(reader, &sample, &info, 1, 1), "taking a response") > 0) {
    const llama_ChatCompletionResponse *response = sample;
    if (info.valid_data) {
      *heard = true;
      final = response->is_final;
      const char *error = final ? error_in(response) : NULL;
      if (error != NULL) stop(REFUSED, error);
      fputs(response->content, stdout);
      if (final) fputc('\n', stdout);
      fflush(stdout);
      if (final && strcmp(response->finish_reason, "length") == 0)
        fputs("c_chat: the answer ends at its greatest length; --max-tokens makes that longer\n", stderr);
    }
    checked(dds_return_loan(reader, &sample, 1), "returning a response");
    sample = NULL;
  }
  return final;
}

int main(int argc, char **argv) {
  struct question question = asked(argc, argv);
  sigemptyset(&interrupts);
  sigaddset(&interrupts, SIGINT);
  sigaddset(&interrupts, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &interrupts, NULL);  // before DDS starts its threads, which inherit it
  dds_entity_t participant =
      checked(dds_create_participant((dds_domainid_t)question.domain, NULL, NULL), "joining the DDS domain");
  atexit(leave);

  dds_qos_t *qos = dds_create_qos();
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(10));
  dds_qset_durability(qos, DDS_DURABILITY_TRANSIENT_LOCAL);
  dds_entity_t reader = response_reader(participant, qos, &question);
  dds_entity_t writer = request_writer(participant, qos);
  dds_delete_qos(qos);

  dds_entity_t interrupt = interrupt_condition(participant);
  dds_entity_t waitset = checked(dds_create_waitset(participant), "creating a wait set");
  checked(dds_set_status_mask(writer, DDS_PUBLICATION_MATCHED_STATUS), "watching the writer");
  checked(dds_set_status_mask(reader, DDS_SUBSCRIPTION_MATCHED_STATUS | DDS_DATA_AVAILABLE_STATUS),
          "watching the reader");
  dds_entity_t watched[] = {interrupt, writer, reader};
  for (int i = 0; i < 3; i++) checked(dds_waitset_attach(waitset, watched[i], 0), "attaching to the wait set");

  bool was_asked = false;
  dds_time_t until = dds_time() + DDS_SECS(question.timeout);
  for (;;) {
    bool interrupted, heard = false, server = has_server(writer, reader);
    if (server && !was_asked) {
      ask(writer, &question);
      heard = was_asked = true;
    }
    if (show(reader, &heard)) return ANSWERED;
    if (was_asked && !server) stop(NO_SERVER, "the server is gone, and the rest of its answer with it");
    if (heard) until = dds_time() + DDS_SECS(question.timeout);
    if (checked(dds_waitset_wait_until(waitset, NULL, 0, until), "waiting") == 0)
      stop(NO_SERVER, was_asked ? "the server is there but does not answer; --timeout waits longer"
                                : "no server is found; is one running, with the same --domain?");
    checked(dds_read_guardcondition(interrupt, &interrupted), "looking for an interrupt");
    if (interrupted) exit(INTERRUPTED);
  }
}
