"""What comes by JetStream: messages of durable consumers, each handled until it can be acknowledged."""
