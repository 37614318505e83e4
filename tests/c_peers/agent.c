// An agent of idl/OrchestratorDDS.idl in C: agent DOMAIN FLEET ID PROTOCOL
//
// It says on stdout, a line each, which hubs it finds, refuses and joins, and what it is sent. A task it answers with
// "from C", the command "count" with the numbers below {"to": N}, any other command with the error unknown_command.
// It runs until it is killed.

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "OrchestratorDDS.h"
#include "dds/dds.h"

#define MAX_HUBS 8
#define LEASE_MS 2000

struct hub {
  char id[256];
  int64_t incarnation;
  // Numbers of sessions: ours, the hub's on each of its writers, the one answered, the one joined.
  uint64_t own, request, control, answered, joined;
  dds_entity_t responses;
};

static dds_entity_t participant, participants, hubs_reader, requests, controls;
static const char *fleet, *id, *protocol;
static struct hub hubs[MAX_HUBS];
static size_t hub_count;

static dds_return_t checked(dds_return_t result, const char *doing) {
  if (result < 0) {
    fprintf(stderr, "agent: %s: %s\n", doing, dds_strretcode(result));
    exit(1);
  }
  return result;
}

static void say(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vprintf(format, values);
  va_end(values);
  putchar('\n');
  fflush(stdout);
}

// Ends in the fleet's partition, or in one below it.

static dds_entity_t topic(const char *name, const dds_topic_descriptor_t *type) {
  return checked(dds_create_topic(participant, type, name, NULL, NULL), name);
}

static dds_qos_t *policies(bool keep_all) {
  dds_qos_t *qos = dds_create_qos();
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(10));
  dds_qset_durability(qos, DDS_DURABILITY_TRANSIENT_LOCAL);
  dds_qset_history(qos, keep_all ? DDS_HISTORY_KEEP_ALL : DDS_HISTORY_KEEP_LAST, 1);
  dds_qset_writer_data_lifecycle(qos, false);
  return qos;
}

static dds_entity_t reader(const char *name, const dds_topic_descriptor_t *type, const char *partition, bool keep_all) {
  dds_qos_t *of_subscriber = dds_create_qos(), *qos = policies(keep_all);
  dds_qset_partition1(of_subscriber, partition);
  dds_entity_t subscriber = checked(dds_create_subscriber(participant, of_subscriber, NULL), "a subscriber");
  dds_entity_t made = checked(dds_create_reader(subscriber, topic(name, type), qos, NULL), name);
  dds_delete_qos(of_subscriber);
  dds_delete_qos(qos);
  return made;
}

static dds_entity_t writer(const char *name, const dds_topic_descriptor_t *type, const char *partition, bool keep_all) {
  dds_qos_t *of_publisher = dds_create_qos(), *qos = policies(keep_all);
  dds_qset_partition1(of_publisher, partition);
  dds_entity_t publisher = checked(dds_create_publisher(participant, of_publisher, NULL), "a publisher");
  dds_entity_t made = checked(dds_create_writer(publisher, topic(name, type), qos, NULL), name);
  dds_delete_qos(of_publisher);
  dds_delete_qos(qos);
  return made;
}

// Versions

// The version in the USER_DATA of the participant that wrote a registration: at most 31 characters, "none" without one.
static void version_of(dds_instance_handle_t writer_of_it, char found[32]) {
  static const char entry[] = "anywire.protocol=";
  strcpy(found, "none");
  dds_builtintopic_endpoint_t *endpoint = dds_get_matched_publication_data(hubs_reader, writer_of_it);
  if (endpoint == NULL) return;
  void *sample = NULL;
  dds_sample_info_t info;
  if (dds_read_instance(participants, &sample, &info, 1, 1, endpoint->participant_instance_handle) == 1) {
    void *data = NULL;
    size_t size = 0;
    const dds_builtintopic_participant_t *of = sample;
    if (dds_qget_userdata(of->qos, &data, &size) && data != NULL) {
      char *text = calloc(1, size + 1);
      memcpy(text, data, size);
      const char *at = strstr(text, entry);
      if (at != NULL) {
        at += sizeof entry - 1;
        size_t length = strcspn(at, ";");
        snprintf(found, 32, "%.*s", (int)(length < 31 ? length : 31), at);
      }
      free(text);
      dds_free(data);
    }
    dds_return_loan(participants, &sample, 1);
  }
  dds_builtintopic_free_endpoint(endpoint);
}

static bool goes_with(const char *theirs) {
  int major[2], minor[2];
  if (sscanf(theirs, "%d.%d", &major[0], &minor[0]) != 2 || sscanf(protocol, "%d.%d", &major[1], &minor[1]) != 2)
    return false;
  return major[0] == major[1] && abs(minor[0] - minor[1]) <= 1;
}

// What keeps a link

static void respond(const struct hub *hub, anywire_TaskResponse response) {
  char *empty = "";
  char **texts[] = {&response.hub_id, &response.task_id, &response.extra, &response.finish_reason,
                    &response.usage,  &response.error,   &response.more};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (*texts[i] == NULL) *texts[i] = empty;
  response.link = hub->request;
  checked(dds_write(hub->responses, &response), "writing a response");
}

static void send_hello(const struct hub *hub) {
  char text[2048];
  snprintf(text, sizeof text,
           "{\"name\": \"%s\", \"incarnation\": 1, \"session\": %" PRIu64 ", \"protocol\": \"%s\", \"revision\": 1, "
           "\"status\": {\"agent_id\": \"%s\", \"incarnation\": 1, \"state\": \"ready\", \"slots\": 1, "
           "\"offers\": \"[{\\\"model\\\": \\\"parrot\\\"}]\"}}",
           id, hub->own, protocol, id);
  respond(hub, (anywire_TaskResponse){.frame = anywire_FRAME_HELLO, .extra = text});
}

static void take_hello(const char *text, uint64_t link, bool control) {
  for (size_t i = 0; i < hub_count; i++) {
    struct hub *hub = &hubs[i];
    char name[300];
    snprintf(name, sizeof name, "\"%s\"", hub->id);
    const char *session = strstr(text, "\"session\":");
    if (strstr(text, name) == NULL || session == NULL) continue;
    uint64_t number = strtoull(session + strlen("\"session\":"), NULL, 10);
    *(control ? &hub->control : &hub->request) = number;
    if (hub->request == hub->control && hub->answered != number) {
      hub->answered = number;
      send_hello(hub);
    }
    if (link == hub->own && hub->request == hub->control && hub->joined != number) {
      hub->joined = number;
      say("joined %s", hub->id);
    }
  }
}

static void take_registration(const anywire_HubRegistration *registered, dds_instance_handle_t writer_of_it) {
  char version[32];
  version_of(writer_of_it, version);
  if (!goes_with(version)) {
    say("refused %s speaks %s this end %s", registered->hub_id, version, protocol);
    return;
  }
  say("found %s speaks %s", registered->hub_id, version);
  if (hub_count == MAX_HUBS) return;
  struct hub *hub = &hubs[hub_count++];
  snprintf(hub->id, sizeof hub->id, "%s", registered->hub_id);
  hub->incarnation = registered->incarnation;
  hub->own = (uint64_t)dds_time();
  char partition[600];
  snprintf(partition, sizeof partition, "%s/hub/%s/%" PRId64, fleet, hub->id, hub->incarnation);
  hub->responses = writer("agent/response", &anywire_TaskResponse_desc, partition, true);
  send_hello(hub);
}

// Tasks and commands

static void answer_task(const struct hub *hub, const anywire_TaskRequest *task) {
  char *said = "from C";
  say("task %s %s", task->task_id, task->tenant);
  respond(hub, (anywire_TaskResponse){.hub_id = task->hub_id,
                                      .task_id = task->task_id,
                                      .attempt = task->attempt,
                                      .is_final = true,
                                      .finish_reason = "stop",
                                      .deltas = {._maximum = 1, ._length = 1, ._buffer = &said, ._release = false}});
}

static void answer_command(const struct hub *hub, const anywire_TaskRequest *command) {
  say("command %s %s", command->kind, command->body);
  anywire_TaskResponse result = {.frame = anywire_FRAME_RESULT, .hub_id = command->hub_id, .task_id = command->task_id};
  const char *to = strstr(command->body, "\"to\":");
  if (strcmp(command->kind, "count") != 0 || to == NULL) {
    result.is_final = true;
    result.error = "{\"code\": \"unknown_command\", \"message\": \"this agent can only count\"}";
    respond(hub, result);
    return;
  }
  long numbers = strtol(to + strlen("\"to\":"), NULL, 10);
  for (; result.seq < numbers && result.seq < command->credit; result.seq++) {
    char text[16];
    snprintf(text, sizeof text, "%" PRId32, result.seq);
    result.extra = text;
    respond(hub, result);
  }
  result.extra = NULL;
  result.is_final = true;
  respond(hub, result);
}

static void take_request(const anywire_TaskRequest *request) {
  if (request->frame == anywire_FRAME_HELLO) {
    take_hello(request->body, request->link, false);
    return;
  }
  for (size_t i = 0; i < hub_count; i++) {
    if (request->link != hubs[i].own) continue;
    if (request->frame == anywire_FRAME_MESSAGE) answer_task(&hubs[i], request);
    if (request->frame == anywire_FRAME_COMMAND) answer_command(&hubs[i], request);
  }
}

static void take_control(const anywire_Control *control) {
  if (control->frame == anywire_FRAME_HELLO)
    take_hello(control->reason, control->link, true);
  else if (control->frame == anywire_FRAME_MESSAGE)
    say("%s %s %" PRId32, control->kind, control->task_id, control->attempt);
}

// All that has come, one sample after the other.
static void take(dds_entity_t from) {
  void *sample = NULL;
  dds_sample_info_t info;
  while (checked(dds_take(from, &sample, &info, 1, 1), "taking") > 0) {
    if (info.valid_data && from == hubs_reader)
      take_registration(sample, info.publication_handle);
    else if (info.valid_data && from == requests)
      take_request(sample);
    else if (info.valid_data)
      take_control(sample);
    checked(dds_return_loan(from, &sample, 1), "returning a sample");
    sample = NULL;
  }
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fputs("usage: agent DOMAIN FLEET ID PROTOCOL\n", stderr);
    return 2;
  }
  fleet = argv[2], id = argv[3], protocol = argv[4];
  char text[600];
  dds_qos_t *qos = dds_create_qos();
  dds_qset_userdata(qos, text, (size_t)snprintf(text, sizeof text, "anywire.protocol=%s;", protocol));
  participant = checked(dds_create_participant((dds_domainid_t)atoi(argv[1]), qos, NULL), "joining the domain");
  dds_delete_qos(qos);
  participants = checked(dds_create_reader(participant, DDS_BUILTIN_TOPIC_DCPSPARTICIPANT, NULL, NULL), "participants");
  snprintf(text, sizeof text, "%s/agent/%s/1", fleet, id);
  requests = reader("agent/request", &anywire_TaskRequest_desc, text, true);
  controls = reader("agent/control", &anywire_Control_desc, text, true);
  hubs_reader = reader("agent/hub", &anywire_HubRegistration_desc, fleet, false);
  dds_entity_t registrations = writer("agent/register", &anywire_AgentRegistration_desc, fleet, false);
  char *chat = "chat";
  anywire_AgentRegistration registration = {
      .incarnation = 1, .pid = getpid(), .lease_ms = LEASE_MS, .agent_id = argv[3], .host = "", .engine = "c",
      .specialization = "", .device = "", .boot_id = "",
      .capabilities = {._maximum = 1, ._length = 1, ._buffer = &chat, ._release = false}};
  checked(dds_write(registrations, &registration), "registering");

  dds_entity_t all[] = {hubs_reader, requests, controls};
  dds_entity_t waitset = checked(dds_create_waitset(participant), "creating a wait set");
  for (size_t i = 0; i < 3; i++) {
    dds_entity_t arrived = checked(dds_create_readcondition(all[i], DDS_ANY_STATE), "creating a condition");
    checked(dds_waitset_attach(waitset, arrived, 0), "attaching");
  }
  for (;;) {
    checked(dds_waitset_wait(waitset, NULL, 0, DDS_INFINITY), "waiting");
    for (size_t i = 0; i < 3; i++) take(all[i]);
  }
}
