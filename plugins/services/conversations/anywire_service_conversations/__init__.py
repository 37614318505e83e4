"""Conversations and responses that go on over a restart: a service that keeps them for gateways.

The service is `anywire_service_conversations.service.ConversationsService`. This file imports nothing: the command line
stays quick.
"""
