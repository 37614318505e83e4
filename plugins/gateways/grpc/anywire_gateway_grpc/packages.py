"""The packages in which the services are named: the one of today, and the one of older clients."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from anywire_gateway_grpc import orchestrator_pb2, ray_executor_pb2

PREFIX = "fleet."
"""Older clients leave it out. Nothing else is different, so their messages are the same bytes."""


def older(file: FileDescriptor) -> FileDescriptor:
    """The same file in the older package, made known to the default pool: reflection tells it from there."""
    made = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(made)
    package = file.package.removeprefix(PREFIX)
    made.name = file.name.replace(".proto", "_older.proto")
    made.package = package
    for message in made.message_type:
        _rename(message, file.package, package)
    for service in made.service:
        for method in service.method:
            method.input_type = _renamed(method.input_type, file.package, package)
            method.output_type = _renamed(method.output_type, file.package, package)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(made.SerializeToString())
    return pool.FindFileByName(made.name)


def _rename(message: descriptor_pb2.DescriptorProto, before: str, after: str) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = _renamed(field.type_name, before, after)
    for nested in message.nested_type:
        _rename(nested, before, after)


def _renamed(type_name: str, before: str, after: str) -> str:
    head = f".{before}."
    return f".{after}.{type_name.removeprefix(head)}" if type_name.startswith(head) else type_name


ORCHESTRATOR = "OrchestratorService"
EXECUTOR = "RayExecutorService"

NAMES: dict[str, tuple[str, ...]] = {
    service: tuple(each.services_by_name[service].full_name for each in (file, older(file)))
    for service, file in ((ORCHESTRATOR, orchestrator_pb2.DESCRIPTOR), (EXECUTOR, ray_executor_pb2.DESCRIPTOR))
}
"""The full names of each service, today's first."""
