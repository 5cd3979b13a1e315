"""A client that knows nothing of the service but its address.

It has no .proto files and no generated code: it asks the server what there is (gRPC reflection),
builds its messages from the answer, posts movements, queries, and prints what it found as JSON,
one object a line. So it shows what a team with another language and other tools meets.

    python foreign_client.py HOST:PORT http://HOST:PORT
"""

import json
import sys
import urllib.request
from datetime import datetime, timezone

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families

TIMEOUT_S = 60


class Service:
    """A service as reflection describes it: its methods become methods of this object."""

    def __init__(self, channel, pool, name):
        for method in pool.FindServiceByName(name).methods:
            request = GetMessageClass(method.input_type)
            response = GetMessageClass(method.output_type)
            kind = ("stream" if method.client_streaming else "unary") + (
                "_stream" if method.server_streaming else "_unary"
            )
            call = getattr(channel, kind)(
                f"/{name}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            setattr(self, method.name, self._caller(call, request, method.client_streaming))

    @staticmethod
    def _caller(call, request, streams):
        def build(fields):
            return json_format.ParseDict(fields, request())

        def invoke(fields):
            message = map(build, fields) if streams else build(fields)
            answer = call(message, timeout=TIMEOUT_S)
            return map(to_dict, answer) if streams else to_dict(answer)

        return invoke


def to_dict(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def tell(what, value):
    print(json.dumps({what: value}), flush=True)


def main(address, http):
    channel = grpc.insecure_channel(address)
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    tell("services", sorted(database.get_services()))

    movements = Service(channel, pool, "sellable.v1.Movements")
    availability = Service(channel, pool, "sellable.v1.Availability")
    rules = Service(channel, pool, "sellable.v1.Rules")
    operations = Service(channel, pool, "sellable.v1.Operations")
    health = Service(channel, pool, "grpc.health.v1.Health")
    tell("health", health.Check({"service": "sellable.v1.Availability"})["status"])

    document = '[channel.market]\nsources = ["dc-*"]\nbuffer = 2\nshare_percent = 50\n'
    tell("rules", rules.Put({"toml": document, "actor": "foreign"})["changed"])

    now = datetime.now(timezone.utc).isoformat()

    def movement(number, sku, quantity, **kind):
        return {
            "id": f"foreign-{number}",
            "source": "python",
            "occurred_at": now,
            "sku": sku,
            "quantity": quantity,
            **kind,
        }

    line = {"order": "o-1", "line": "1", "location": "dc-north"}
    batch = [
        movement(1, "MUG", 40, received={"location": "dc-north"}),
        movement(2, "MUG", 7, received={"location": "dc-south", "condition": "CONDITION_GOOD"}),
        movement(3, "MUG", 5, reserved={**line, "channel": "market"}),
        movement(4, "MUG", 2, shipped=line),
        movement(5, "MUG", 1, received={"location": ""}),
    ]
    posted = movements.Post({"movements": batch})
    tell("outcomes", [outcome["outcome"] for outcome in posted["outcomes"]])
    tell("refused", posted["outcomes"][4]["field"])

    streamed = list(
        movements.PostStream(
            {"movements": [movement(n, f"SKU-{n % 10}", 3, received={"location": "dc-south"})]}
            for n in range(100, 200)
        )
    )
    tell("streamed", len(streamed))
    again = movements.Post({"movements": batch[:4]})
    tell("duplicates", [outcome["duplicate"] for outcome in again["outcomes"]])

    position = streamed[-1]["position"]
    query = {"channel": "market", "skus": ["MUG", "SKU-3", "NONE"], "min_position": position}
    answer = availability.Get(query)
    tell("ats", {item["sku"]: [int(item["ats"]), item["known"]] for item in answer["items"]})

    explained = availability.Explain({"channel": "market", "sku": "MUG"})
    available = sum(
        max(0, int(term["balances"]["free"]) - int(term["buffer_withheld"]))
        for term in explained["locations"]
        if term["sells"]
    )
    tell("recomputed", available * explained["terms"]["share_percent"] // 100)
    tell("explained", int(explained["ats"]))
    tell("steps", explained["steps"])

    reservations = Service(channel, pool, "sellable.v1.Reservations")

    def cart(number, quantity):
        return {
            "id": f"cart-{number}",
            "channel": "market",
            "lines": [{"sku": "MUG", "quantity": quantity}],
            "time_to_live": "900s",
        }

    short = reservations.Reserve(cart(1, 20))
    line = short["short_lines"][0]
    tell("too_many", [short["granted"], line["sku"], int(line["available"])])
    granted = reservations.Reserve(cart(2, 19))
    place = granted["allocations"][0]
    tell("granted", [granted["granted"], place["location"], int(place["quantity"])])
    again = reservations.Reserve(cart(2, 19))
    tell("again", [again["granted"], again["duplicate"]])
    query = {"channel": "market", "skus": ["MUG"]}
    tell("left", int(availability.Get(query)["items"][0]["ats"]))
    reservations.Confirm({"id": "c-1", "reservation": "cart-2"})
    tell("reservation", reservations.Get({"id": "cart-2"})["state"])
    back = reservations.Release({"id": "x-1", "reservation": "cart-2"})["released"]
    tell("released", sum(int(place["quantity"]) for place in back))

    try:
        availability.Get({"channel": "nowhere", "skus": ["MUG"]})
    except grpc.RpcError as error:
        tell("unknown_channel", [error.code().name, error.details()])
    digest = operations.Digest({})
    tell("conservation_violations", int(digest["conservation_violations"]))

    # Another's parser, which takes nothing but well-formed OpenMetrics.
    with urllib.request.urlopen(f"{http}/metrics", timeout=TIMEOUT_S) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    tell("metrics", sorted(family.name for family in families))
    tell(
        "applied",
        [
            int(sample.value)
            for family in families
            for sample in family.samples
            if sample.name == "sellable_movements_total"
            and sample.labels == {"outcome": "applied"}
        ],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
