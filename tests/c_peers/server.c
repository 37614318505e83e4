// A server of idl/LlamaDDS.idl whose model says what it was told, a word at a time: server DOMAIN MODEL
//
// It has one slot, and answers requests in the order in which they come, until it is killed.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "LlamaDDS.h"
#include "dds/dds.h"

static dds_entity_t participant, responses, statuses;
static dds_time_t told_at;
static char *model;

static dds_return_t checked(dds_return_t result, const char *doing) {
  if (result < 0) {
    fprintf(stderr, "server: %s: %s\n", doing, dds_strretcode(result));
    exit(1);
  }
  return result;
}

static dds_entity_t topic(const char *name, const dds_topic_descriptor_t *type) {
  return checked(dds_create_topic(participant, type, name, NULL, NULL), name);
}

static void tell(bool idle) {
  llama_ServerStatus status = {
      .server_id = "c-server", .slots_idle = idle, .slots_processing = !idle, .model_loaded = model, .ready = true};
  checked(dds_write(statuses, &status), "writing the status");
  told_at = dds_time();
}

// Nobody's history is longer than 8: after each fourth response it waits until they have it.
static void respond(const llama_ChatCompletionRequest *request, char *content, int tokens, char *reason) {
  llama_ChatCompletionResponse response = {
      .request_id = request->request_id,
      .model = model,
      .content = content,
      .finish_reason = reason,
      .is_final = *reason != '\0',
      .prompt_tokens = 1,
      .completion_tokens = tokens,
  };
  checked(dds_write(responses, &response), "writing a response");
  if (tokens % 4 == 0 || response.is_final) checked(dds_wait_for_acks(responses, DDS_SECS(10)), "waiting for clients");
  if (dds_time() - told_at > DDS_MSECS(500)) tell(false);
}

// Words are told with the space before them, so that together they are the prompt.
static void answer(const llama_ChatCompletionRequest *request) {
  uint32_t count = request->messages._length;
  const char *prompt = count > 0 ? request->messages._buffer[count - 1].content : "";
  char *said = calloc(1, strlen(prompt) + 1), *word = calloc(1, strlen(prompt) + 1);
  int tokens = 0;
  bool cut = false;
  while (*prompt != '\0' && !(cut = request->max_tokens > 0 && tokens == request->max_tokens)) {
    size_t size = 1 + strcspn(prompt + 1, " ");
    memcpy(word, prompt, size);
    word[size] = '\0';
    prompt += size;
    tokens++;
    if (request->stream)
      respond(request, word, tokens, "");
    else
      strcat(said, word);
  }
  respond(request, said, tokens, cut ? "length" : "stop");
  free(said);
  free(word);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fputs("usage: server DOMAIN MODEL\n", stderr);
    return 2;
  }
  participant = checked(dds_create_participant((dds_domainid_t)atoi(argv[1]), NULL, NULL), "joining the domain");
  model = argv[2];
  dds_qos_t *qos = dds_create_qos();
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(10));
  dds_qset_durability(qos, DDS_DURABILITY_TRANSIENT_LOCAL);
  dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 8);
  dds_entity_t asked = topic("llama_chat_completion_request", &llama_ChatCompletionRequest_desc);
  dds_entity_t answered = topic("llama_chat_completion_response", &llama_ChatCompletionResponse_desc);
  dds_entity_t requests = checked(dds_create_reader(participant, asked, qos, NULL), "creating the reader of requests");
  responses = checked(dds_create_writer(participant, answered, qos, NULL), "creating the writer of responses");

  dds_qos_t *status_qos = dds_create_qos();
  dds_qset_reliability(status_qos, DDS_RELIABILITY_BEST_EFFORT, 0);
  dds_qset_history(status_qos, DDS_HISTORY_KEEP_LAST, 1);
  dds_qset_deadline(status_qos, DDS_SECS(2));
  dds_qset_liveliness(status_qos, DDS_LIVELINESS_AUTOMATIC, DDS_SECS(1));
  dds_entity_t told = topic("llama_server_status", &llama_ServerStatus_desc);
  statuses = checked(dds_create_writer(participant, told, status_qos, NULL), "creating the writer of the status");

  dds_entity_t waitset = checked(dds_create_waitset(participant), "creating a wait set");
  dds_entity_t arrived = checked(dds_create_readcondition(requests, DDS_ANY_STATE), "creating a condition");
  checked(dds_waitset_attach(waitset, arrived, 0), "attaching");
  for (;;) {
    tell(true);
    checked(dds_waitset_wait(waitset, NULL, 0, DDS_MSECS(500)), "waiting");
    void *sample = NULL;
    dds_sample_info_t info;
    while (checked(dds_take(requests, &sample, &info, 1, 1), "taking a request") > 0) {
      if (info.valid_data) {
        tell(false);
        answer(sample);
      }
      checked(dds_return_loan(requests, &sample, 1), "returning a request");
      sample = NULL;
    }
  }
}
