"""Damaged lists of names of structures: CSV, JSON and YAML."""

from __future__ import annotations

from .made import add

_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)


def _put(what: str, name: str, text: str | bytes, accepted: bool = False) -> None:
    data = text.encode() if isinstance(text, str) else text
    add("Lists of names", what, name, data, accepted, "labels")


_put("CSV: sound", "labels.csv", "value,name\n1,liver\n2,spleen\n", True)
_put("CSV: with a byte order mark", "labels.csv", "\ufeffvalue,name\n1,liver\n2,spleen\n", True)
_put("CSV: empty", "labels.csv", "")
_put("CSV: other headings", "labels.csv", "a,b\n1,liver\n2,spleen\n", True)
_put("CSV: a value that is a word", "labels.csv", "value,name\none,liver\n")
_put("CSV: a value twice", "labels.csv", "value,name\n1,liver\n1,spleen\n")
_put("CSV: zero bytes", "labels.csv", b"value,name\n1,li\0ver\n")
_put("CSV: no text", "labels.csv", bytes(range(128, 256)) * 10)
_put("CSV: a field of 1 MB", "labels.csv", 'value,name\n1,"' + "x" * 1_000_000 + '"\n')
_put("CSV: a quote without an end", "labels.csv", 'value,name\n1,"' + "liver\n" * 40_000)
_put("JSON: sound", "labels.json", '{"1": "liver", "2": "spleen"}', True)
_put("JSON: empty", "labels.json", "")
_put("JSON: cut", "labels.json", '{"1": "liver", "2": "spl')
_put("JSON: nested 100 000 times", "labels.json", "[" * 100_000)
_put("JSON: a key twice", "labels.json", '{"1": "liver", "1": "spleen"}')
_put("JSON: a number", "labels.json", "7")
_put("JSON: a value of 400 digits", "labels.json", '{"' + "9" * 400 + '": "liver"}')
_put("JSON: a value of 10 000 digits", "labels.json", '{"' + "9" * 10_000 + '": "liver"}')
_put("JSON: a number of 10 000 digits", "labels.json", '{"liver": ' + "9" * 10_000 + "}")
_put("JSON: a value of infinity", "labels.json", '{"liver": 1e400}')
_put("JSON: a value of 1.9", "labels.json", '{"liver": 1.9}')
_put("JSON: a value that is true", "labels.json", '{"liver": true}')
_put("JSON: UTF-16", "labels.json", '{"1": "liver"}'.encode("utf-16"))
_put("YAML: sound", "labels.yaml", "1: liver\n2: spleen\n", True)
_put("YAML: a Python object", "labels.yaml", '1: !!python/object/apply:os.system ["exit 3"]\n')
_put("YAML: aliases that grow to 10^9 words", "labels.yaml", _BOMB + "labels: *i\n")
_put("YAML: nested 20 000 times", "labels.yaml", "1: " + "[" * 20_000 + "]" * 20_000)
_put("YAML: an alias of itself", "labels.yaml", "labels: &l {liver: *l}\n")
_put("YAML: control characters", "labels.yaml", b"1: \x00\x01\n")
