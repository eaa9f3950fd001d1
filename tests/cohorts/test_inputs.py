"""Every input of ``benchmarks/inputs`` gives its right answer: voxels of each structure, cases,
patients, channels, the file that is refused, and the files that are not used.
"""

from __future__ import annotations

import pytest
from benchmarks.inputs.every import INPUTS
from benchmarks.inputs.judge import judge
from benchmarks.inputs.read_delineate import answer

# A clear refusal with a way out is as good as the reading.
REFUSED = (
    "channels_overlap",
    "nan_in_one",
    "negative_background",
    "nifti_labels_of_pictures",
    "slightly_sheared",
    "values_above_65535",
)


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_gives_its_right_answer(tmp_path, name):
    one = INPUTS[name]
    one.make(tmp_path)
    outcome, why = judge(answer(tmp_path), one.right)
    assert outcome == "right" or (outcome == "refused" and name in REFUSED), why
