"""Reads a Perfetto trace with Perfetto's own messages, checks that it is sound, and prints what a viewer shows as JSON.

usage: check.py FILE          (or - for standard input)

What is wrong is listed in "errors". Checked are: the bytes parse to the end; the first packet, and only it, is marked as the
first of its sequence; strings are introduced once, and before or with their use; tracks are introduced once, before their
events, and stand under a process; of each track, in the order of time and position, each end finds its open slice, and
none stays open.
"""
import collections
import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import LogMessage, Trace, TracePacket, TrackEvent

CLEARED = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
NEEDS = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
INTERNED = {  # field of InternedData: field with the text
    "event_categories": "name", "event_names": "name", "debug_annotation_names": "name",
    "source_locations": None, "log_message_body": "body",
}


class Checker:
    def __init__(self):
        self.errors, self.packets = [], []
        self.strings = None  # field: {iid: text}
        self.processes, self.tracks, self.order = {}, {}, []
        self.events = collections.defaultdict(list)  # track: its events
        self.resets = 0

    def wrong(self, text):
        if len(self.errors) < 20:
            self.errors.append(text)

    def read(self, data):
        trace = Trace.FromString(data)
        if trace.ByteSize() != len(data):
            self.wrong(f"parsed {trace.ByteSize()} of {len(data)} bytes")
        for number, packet in enumerate(trace.packet):
            self.packet(number, packet)
        return self

    def packet(self, number, p):
        at = f"packet {number}"
        if len(UnknownFieldSet(p)):
            self.wrong(f"{at}: unknown fields")
        if p.trusted_packet_sequence_id != 1:
            self.wrong(f"{at}: sequence {p.trusted_packet_sequence_id}")
        if not p.sequence_flags & NEEDS or p.sequence_flags & ~(NEEDS | CLEARED):
            self.wrong(f"{at}: flags {p.sequence_flags}")
        if p.first_packet_on_sequence != (number == 0) or p.HasField("first_packet_on_sequence") != (number == 0):
            self.wrong(f"{at}: first_packet_on_sequence is {p.first_packet_on_sequence}")
        if p.sequence_flags & CLEARED:
            self.resets += number > 0
            self.strings = {field: {} for field in INTERNED}
        elif number == 0:
            self.wrong("the first packet does not clear the state")
            self.strings = {field: {} for field in INTERNED}
        entry = {"flags": p.sequence_flags, "data": p.WhichOneof("data"), "introduces": self.introduce(at, p)}
        self.packets.append(entry)
        if p.HasField("track_descriptor"):
            self.descriptor(at, p)
        elif p.HasField("track_event"):
            self.event(at, number, p, entry)
        else:
            self.wrong(f"{at}: holds {p.WhichOneof('data')}")

    def introduce(self, at, p):
        if not p.HasField("interned_data"):
            return {}
        found = {}
        for descriptor, values in p.interned_data.ListFields():
            field = descriptor.name
            if field not in INTERNED:
                self.wrong(f"{at}: interned {field}")
                continue
            for v in values:
                text = getattr(v, INTERNED[field]) if INTERNED[field] else (v.file_name, v.line_number)
                if v.iid == 0 or v.iid in self.strings[field]:
                    self.wrong(f"{at}: {field} {v.iid} again")
                self.strings[field][v.iid] = text
                found.setdefault(field, []).append(v.iid)
        if not found:
            self.wrong(f"{at}: interned data without any")
        return found

    def lookup(self, at, field, iid):
        if iid not in self.strings[field]:
            self.wrong(f"{at}: {field} {iid} is not known")
            return ("", 0) if INTERNED[field] is None else ""
        return self.strings[field][iid]

    def descriptor(self, at, p):
        d = p.track_descriptor
        if p.HasField("timestamp"):
            self.wrong(f"{at}: a descriptor with a timestamp")
        if d.uuid in self.tracks:
            self.wrong(f"{at}: track {d.uuid} again")
        track = {"uuid": d.uuid, "parent": d.parent_uuid, "name": d.name, "kind": "track"}
        if d.HasField("process"):
            track.update(kind="process", name=d.process.process_name, pid=d.process.pid)
            if d.HasField("parent_uuid") or d.process.pid in self.processes.values():
                self.wrong(f"{at}: process {d.process.pid} has a parent or a double")
            self.processes[d.uuid] = d.process.pid
        elif d.parent_uuid not in self.processes:
            self.wrong(f"{at}: track {d.uuid} stands under no process")
        if d.HasField("thread"):
            track.update(kind="thread", name=d.thread.thread_name, pid=d.thread.pid, tid=d.thread.tid)
            if d.thread.pid != self.processes.get(d.parent_uuid):
                self.wrong(f"{at}: thread of pid {d.thread.pid} under another process")
        if d.HasField("counter"):
            track.update(kind="counter", unit=d.counter.unit_name)
        self.tracks[d.uuid] = track
        self.order.append(track)

    def event(self, at, number, p, entry):
        e = p.track_event
        if not p.HasField("timestamp"):
            self.wrong(f"{at}: no timestamp")
        if e.track_uuid not in self.tracks:
            self.wrong(f"{at}: track {e.track_uuid} is not known")
        event = {"time": p.timestamp, "position": number, "type": e.type, "track": e.track_uuid}
        if len(e.category_iids) > 1:
            self.wrong(f"{at}: several categories")
        for iid in e.category_iids:
            event["category"] = self.lookup(at, "event_categories", iid)
        if e.HasField("name_iid"):
            event["name"] = self.lookup(at, "event_names", e.name_iid)
        elif e.HasField("name"):
            event["name"] = e.name
        if e.HasField("source_location_iid"):
            event["file"], event["line"] = self.lookup(at, "source_locations", e.source_location_iid)
        arguments = {}
        for a in e.debug_annotations:
            arguments[self.lookup(at, "debug_annotation_names", a.name_iid)] = getattr(a, a.WhichOneof("value"))
        if arguments:
            event["arguments"] = arguments
        if e.HasField("log_message"):
            event["log"] = self.lookup(at, "log_message_body", e.log_message.body_iid)
            event["priority"] = LogMessage.Priority.Name(e.log_message.prio)
        if e.HasField("screenshot"):
            event["jpeg"] = len(e.screenshot.jpg_image)
        if e.type == TrackEvent.TYPE_COUNTER:
            event["value"] = e.double_counter_value
        entry.update(type=e.type, time=p.timestamp, track=e.track_uuid, name=e.name_iid,
                     category=list(e.category_iids), location=e.source_location_iid)
        self.events[e.track_uuid].append(event)

    def result(self):
        out = {"errors": self.errors, "resets": self.resets, "packets": self.packets, "tracks": self.order,
               "slices": [], "instants": [], "values": []}
        for track in self.order:
            self.walk(track, out)
        return out

    def walk(self, track, out):
        """Reads the events of one track in the order in which a viewer does."""
        at = f"track {track['uuid']}"
        open_slices, count = [], collections.Counter()
        for e in sorted(self.events[track["uuid"]], key=lambda e: (e["time"], e["position"])):
            count[e["type"]] += 1
            if (e["type"] == TrackEvent.TYPE_COUNTER) != (track["kind"] == "counter"):
                self.wrong(f"{at}: event of type {e['type']} on a track of kind {track['kind']}")
            if e["type"] == TrackEvent.TYPE_SLICE_BEGIN:
                s = {"begin": e["time"], "depth": len(open_slices), "parent": open_slices[-1]["name"] if open_slices else "",
                     "closed": False, **{k: v for k, v in e.items() if k not in ("time", "type")}}
                open_slices.append(s)
                out["slices"].append(s)
            elif e["type"] == TrackEvent.TYPE_SLICE_END:
                self.end(at, open_slices, e)
            elif e["type"] == TrackEvent.TYPE_INSTANT:
                out["instants"].append(e)
            elif e["type"] == TrackEvent.TYPE_COUNTER:
                out["values"].append(e)
            else:
                self.wrong(f"{at}: event of type {e['type']}")
        if count[TrackEvent.TYPE_SLICE_BEGIN] != count[TrackEvent.TYPE_SLICE_END] or open_slices:
            self.wrong(f"{at}: {count[TrackEvent.TYPE_SLICE_BEGIN]} begins, {count[TrackEvent.TYPE_SLICE_END]} ends")

    def end(self, at, open_slices, e):
        """Ends the innermost open slice with the end's name and category, or the innermost one if it has none."""
        for s in reversed(open_slices):
            if s["closed"] or any(k in e and e[k] != s[k] for k in ("name", "category", "file", "line")):
                continue
            s["end"], s["closed"] = e["time"], True
            break
        else:
            self.wrong(f"{at}: the end at {e['time']} of {e.get('name')} finds no slice")
        while open_slices and open_slices[-1]["closed"]:
            open_slices.pop()


data = sys.stdin.buffer.read() if sys.argv[1] == "-" else open(sys.argv[1], "rb").read()
json.dump(Checker().read(data).result(), sys.stdout)
