"""The trimmed messages: generated from the committed file, with the numbers that Envoy speaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from gharial.adapters.envoy.proto import ext_proc_pb2 as pb

SRC = Path(__file__).parents[2] / "src"
PROTO = "gharial/adapters/envoy/proto/ext_proc.proto"


def test_field_numbers_are_envoys():
    """Numbers and types are those of envoy.service.ext_proc.v3; a slip would be read as another field, or skipped."""
    numbers = {
        (message.name, field.name): field.number
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    assert numbers == {
        ("ProcessingRequest", "request_headers"): 2,
        ("ProcessingRequest", "response_headers"): 3,
        ("ProcessingRequest", "request_body"): 4,
        ("ProcessingRequest", "response_body"): 5,
        ("ProcessingRequest", "request_trailers"): 6,
        ("ProcessingRequest", "response_trailers"): 7,
        ("ProcessingRequest", "attributes"): 9,
        ("ProcessingRequest", "observability_mode"): 10,
        ("ProcessingRequest", "protocol_config"): 11,
        ("ProtocolConfiguration", "request_body_mode"): 1,
        ("ProtocolConfiguration", "response_body_mode"): 2,
        ("ProtocolConfiguration", "send_body_without_waiting_for_header_response"): 3,
        ("HttpHeaders", "headers"): 1,
        ("HttpHeaders", "end_of_stream"): 3,
        ("HttpBody", "body"): 1,
        ("HttpBody", "end_of_stream"): 2,
        ("HttpTrailers", "trailers"): 1,
        ("HeaderMap", "headers"): 1,
        ("HeaderValue", "key"): 1,
        ("HeaderValue", "value"): 2,
        ("HeaderValue", "raw_value"): 3,
        ("ProcessingResponse", "request_headers"): 1,
        ("ProcessingResponse", "response_headers"): 2,
        ("ProcessingResponse", "request_body"): 3,
        ("ProcessingResponse", "response_body"): 4,
        ("ProcessingResponse", "response_trailers"): 6,
        ("ProcessingResponse", "immediate_response"): 7,
        ("HeadersResponse", "response"): 1,
        ("BodyResponse", "response"): 1,
        ("TrailersResponse", "header_mutation"): 1,
        ("CommonResponse", "header_mutation"): 2,
        ("CommonResponse", "body_mutation"): 3,
        ("HeaderMutation", "set_headers"): 1,
        ("HeaderMutation", "remove_headers"): 2,
        ("HeaderValueOption", "header"): 1,
        ("HeaderValueOption", "append"): 2,
        ("HeaderValueOption", "append_action"): 3,
        ("HeaderValueOption", "keep_empty_value"): 4,
        ("BodyMutation", "body"): 1,
        ("BodyMutation", "clear_body"): 2,
        ("BodyMutation", "streamed_response"): 3,
        ("StreamedBodyResponse", "body"): 1,
        ("StreamedBodyResponse", "end_of_stream"): 2,
        ("ImmediateResponse", "status"): 1,
        ("ImmediateResponse", "headers"): 2,
        ("ImmediateResponse", "body"): 3,
        ("ImmediateResponse", "details"): 5,
        ("HttpStatus", "code"): 1,
    }
    modes = ["NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED", "GRPC"]
    assert list(pb.BodySendMode.keys()) == modes
    assert list(pb.BodySendMode.values()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.services
def test_generated_code_is_that_of_the_proto_file(tmp_path):
    """Who edits ext_proc.proto without generating anew is told so."""
    pytest.importorskip("grpc_tools", reason="needs the dependency group `services`")
    out = tmp_path / "set.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(SRC), f"--descriptor_set_out={out}", PROTO]
    subprocess.run(command, check=True)
    generated = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    generated.ClearField("source_code_info")
    for message in generated.message_type:  # json names are filled in by protoc, not by the Python generator
        for item in [*message.field, *(f for nested in message.nested_type for f in nested.field)]:
            item.ClearField("json_name")
    committed = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(committed)
    for message in committed.message_type:
        for item in [*message.field, *(f for nested in message.nested_type for f in nested.field)]:
            item.ClearField("json_name")
    assert committed == generated
