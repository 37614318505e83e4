// Who is in a fleet, from the registrations on agent/register: observer DOMAIN FLEET
//
// A line for each agent that comes, with what it says of itself, and for each that says goodbye, or dies.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "OrchestratorDDS.h"
#include "dds/dds.h"

static dds_return_t checked(dds_return_t result, const char *doing) {
  if (result < 0) {
    fprintf(stderr, "observer: %s: %s\n", doing, dds_strretcode(result));
    exit(1);
  }
  return result;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fputs("usage: observer DOMAIN FLEET\n", stderr);
    return 2;
  }
  dds_domainid_t domain = (dds_domainid_t)atoi(argv[1]);
  dds_entity_t participant = checked(dds_create_participant(domain, NULL, NULL), "joining the domain");
  dds_qos_t *qos = dds_create_qos();
  dds_qset_partition1(qos, argv[2]);
  dds_entity_t subscriber = checked(dds_create_subscriber(participant, qos, NULL), "creating a subscriber");
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(10));
  dds_qset_durability(qos, DDS_DURABILITY_TRANSIENT_LOCAL);
  dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 1);
  dds_entity_t topic = checked(
      dds_create_topic(participant, &anywire_AgentRegistration_desc, "agent/register", NULL, NULL), "creating a topic");
  dds_entity_t reader = checked(dds_create_reader(subscriber, topic, qos, NULL), "creating a reader");
  dds_entity_t waitset = checked(dds_create_waitset(participant), "creating a wait set");
  dds_entity_t arrived = checked(dds_create_readcondition(reader, DDS_ANY_STATE), "creating a condition");
  checked(dds_waitset_attach(waitset, arrived, 0), "attaching");
  for (;;) {
    void *sample = NULL;
    dds_sample_info_t info;
    while (checked(dds_take(reader, &sample, &info, 1, 1), "taking") > 0) {
      const anywire_AgentRegistration *agent = sample;
      if (info.instance_state == DDS_IST_NOT_ALIVE_DISPOSED)
        printf("goodbye %s\n", agent->agent_id);
      else if (info.instance_state == DDS_IST_NOT_ALIVE_NO_WRITERS)
        printf("died %s\n", agent->agent_id);
      else
        printf("here %s %" PRId32 " %s %s\n", agent->agent_id, agent->pid, agent->host, agent->engine);
      fflush(stdout);
      checked(dds_return_loan(reader, &sample, 1), "returning a sample");
      sample = NULL;
    }
    checked(dds_waitset_wait(waitset, NULL, 0, DDS_INFINITY), "waiting");
  }
}
