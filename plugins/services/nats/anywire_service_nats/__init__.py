"""Events, tasks and deliberations over NATS JetStream."""
