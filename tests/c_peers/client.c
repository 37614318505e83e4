// A client of idl/LlamaDDS.idl as existing ones are: it asks, and looks into its reader without a pause until the final
// response is there.
//
//   client DOMAIN NAME COUNT SECONDS MODE PROMPT
//
// MODE is "whole", "stream" or "both" (by turns). It asks COUNT times, one request after the other, and gives each up
// after SECONDS. For each it tells, separated by tabs: the request_id, the finish_reason ("lost" when none came), how
// many responses came, and the text.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "LlamaDDS.h"
#include "dds/dds.h"

#define BATCH 10

static dds_return_t checked(dds_return_t result, const char *doing) {
  if (result < 0) {
    fprintf(stderr, "client: %s: %s\n", doing, dds_strretcode(result));
    exit(1);
  }
  return result;
}

static void await_server(dds_entity_t writer, dds_entity_t reader, double seconds) {
  dds_time_t until = dds_time() + (dds_duration_t)(seconds * 1e9);
  dds_publication_matched_status_t reads = {0};
  dds_subscription_matched_status_t writes = {0};
  while (reads.current_count == 0 || writes.current_count == 0) {
    if (dds_time() > until) {
      fputs("client: no server\n", stderr);
      exit(3);
    }
    dds_sleepfor(DDS_MSECS(10));
    checked(dds_get_publication_matched_status(writer, &reads), "looking for servers");
    checked(dds_get_subscription_matched_status(reader, &writes), "looking for servers");
  }
}

static void await_answer(dds_entity_t reader, const char *id, double seconds) {
  dds_time_t until = dds_time() + (dds_duration_t)(seconds * 1e9);
  char *text = calloc(1, 1), reason[32] = "lost";
  size_t size = 0;
  int count = 0;
  bool final = false;
  while (!final && dds_time() < until) {
    void *samples[BATCH] = {NULL};
    dds_sample_info_t infos[BATCH];
    dds_return_t taken = checked(dds_take(reader, samples, infos, BATCH, BATCH), "taking responses");
    for (int i = 0; i < taken; i++) {
      const llama_ChatCompletionResponse *response = samples[i];
      if (!infos[i].valid_data || strcmp(response->request_id, id) != 0 || final) continue;
      size_t more = strlen(response->content);
      text = realloc(text, size + more + 1);
      memcpy(text + size, response->content, more + 1);
      size += more;
      count++;
      final = response->is_final;
      if (final) snprintf(reason, sizeof reason, "%s", response->finish_reason);
    }
    if (taken > 0) checked(dds_return_loan(reader, samples, taken), "returning responses");
  }
  printf("%s\t%s\t%d\t%s\n", id, reason, count, text);
  fflush(stdout);
  free(text);
}

int main(int argc, char **argv) {
  if (argc != 7) {
    fputs("usage: client DOMAIN NAME COUNT SECONDS MODE PROMPT\n", stderr);
    return 2;
  }
  const int requests = atoi(argv[3]);
  const double seconds = atof(argv[4]);
  dds_entity_t participant =
      checked(dds_create_participant((dds_domainid_t)atoi(argv[1]), NULL, NULL), "joining the domain");
  dds_qos_t *qos = dds_create_qos();
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(10));
  dds_qset_durability(qos, DDS_DURABILITY_TRANSIENT_LOCAL);
  dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 8);
  dds_entity_t asked = checked(dds_create_topic(participant, &llama_ChatCompletionRequest_desc,
                                                "llama_chat_completion_request", NULL, NULL),
                               "creating the topic of requests");
  dds_entity_t answered = checked(dds_create_topic(participant, &llama_ChatCompletionResponse_desc,
                                                   "llama_chat_completion_response", NULL, NULL),
                                  "creating the topic of responses");
  dds_entity_t writer = checked(dds_create_writer(participant, asked, qos, NULL), "creating the writer of requests");
  dds_entity_t reader = checked(dds_create_reader(participant, answered, qos, NULL), "creating the reader of responses");
  dds_delete_qos(qos);
  await_server(writer, reader, seconds);

  for (int i = 0; i < requests; i++) {
    char id[128];
    snprintf(id, sizeof id, "%s-%d", argv[2], i);
    llama_ChatMessage message = {.role = "user", .content = argv[6]};
    llama_ChatCompletionRequest request = {
        .request_id = id,
        .model = "llama-3-8b",
        .messages = {._maximum = 1, ._length = 1, ._buffer = &message},
        .max_tokens = 32,
        .stream = strcmp(argv[5], "stream") == 0 || (strcmp(argv[5], "both") == 0 && i % 2 == 1),
    };
    checked(dds_write(writer, &request), "writing a request");
    await_answer(reader, id, seconds);
  }
  checked(dds_delete(participant), "leaving the domain");
  return 0;
}
