"""Reading Darknet's cfg files: what is refused, at which line, and the maps of what is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradloom.formats import darknet
from gradloom.formats.darknet.plan import read_plan
from gradloom.formats.darknet.step import Map

NET = "[net]\nheight=8\nwidth=8\nchannels=4\n"  # the first layer's section is line 5


def plan_of(tmp_path: Path, text: str) -> list[Map]:
    file = tmp_path / "net.cfg"
    file.write_text(text, encoding="utf-8")
    return [step.output for step in read_plan(file).steps]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "Expected [net], then a section a layer. Received: a file without sections"),
        ("# nothing\n\n", 1, "a file without sections"),
        ("height=8\n", 1, "Expected [net]. Received: 'height=8'"),
        ("[net\n", 1, "Expected a section like [net]. Received: '[net'"),
        ("[convolutional]\n", 1, "[convolutional] Expected [net] as the first section"),
        ("[net]\nheight=8\nwidth=8\n", 1, "[net] Expected channels=… in this section"),
        ("[net]\nheight=0\nwidth=8\nchannels=3\n", 2, "Expected height as an integer ≥ 1. Received: height=0"),
        ("[net]\nheight=8\nheigth=8\n", 3, "Unknown key. Did you mean 'height'"),
        ("[net]\nheight=8\nwidth=8\nchannels=3\ninputs=9\n[avgpool]", 5, "of height, width and channels, 192"),
        (NET.replace("=8", "=50000"), 1, "at most 2147483647 numbers. Received: one of 50000×50000×4"),
        (NET + "[upsample]\nstride=9999\n", 5, "at most 2147483647 numbers. Received: one of 79992×79992×4"),
        (NET, 1, "Expected layers after it. Received: none that computes anything"),
        (NET + "[cost]\n", 1, "none that computes anything"),
        (NET + "[convolutionel]\n", 5, "Unknown section. Did you mean 'convolutional'"),
        (NET + "[yolo]\n", 5, "Unknown section"),
        (NET + "[reorg]\n", 5, "Unknown section"),
        (NET + "[avgpool]\nfilters=3\n", 6, "Unknown key"),
        (NET + "[convolutional]\nfilters\n", 6, "Expected key=value. Received: 'filters'"),
        (NET + "[convolutional]\nsize=3\nsize=3\n", 6, "Received: size= in line 6 and again in line 7"),
        (NET + "[convolutional]\nfilters=8\nactivation=leeky\n", 7, "Unknown activation. Did you mean 'leaky'"),
        (NET + "[convolutional]\nstride=0\n", 6, "Expected stride as an integer ≥ 1. Received: stride=0"),
        (NET + "[convolutional]\nstride=-1\n", 6, "Received: stride=-1"),
        (NET + "[convolutional]\nstride=1.5\n", 6, "Received: stride=1.5"),
        (NET + "[convolutional]\nstride=\n", 6, "Received: stride="),
        (NET + "[convolutional]\nfilters=99999999999999\n", 6, "Expected filters as an integer"),
        (NET + "[convolutional]\nfilters=2000000000\nsize=3\npad=1\n", 6, "Expected at most 2147483647 weights"),
        (NET + "[convolutional]\n\n# a comment\nsize=9\n", 8, "Expected a size that fits the map of 8×8×4"),
        (NET + "[convolutional]\nfilters=6\ngroups=4\n", 7, "Expected groups to divide the 6 filters"),
        (NET + "[convolutional]\nfilters=6\ngroups=3\n", 7, "divide the 4 channels of its input"),
        (NET + "[convolutional]\npad=yes\n", 6, "Expected pad as an integer ≥ 0"),
        (NET + "[convolutional]\nxnor=1\n", 6, "A convolution of signs is not supported"),
        (NET + "[convolutional]\ndontload=1\n", 6, "is not supported. Expected: dontload=0"),
        (NET + "[maxpool]\nsize=2\nstride=0\n", 7, "Expected stride as an integer ≥ 1"),
        (NET + "[maxpool]\nsize=10\npadding=1\n", 6, "Expected windows that all lie partly on the map"),
        (NET + "[maxpool]\nsize=2\npadding=8\n", 6, "Expected windows that all lie partly on the map"),
        (NET + "[shortcut]\n", 5, "Expected from=… in this section"),
        (NET + "[shortcut]\nfrom=-3\n", 6, "it is the first one. Received: -3"),
        (NET + "[avgpool]\n[shortcut]\nfrom=1\n", 7, "Expected from to name layers above this one, layer 1"),
        (NET + "[avgpool]\n[shortcut]\nfrom=x\n", 7, "Expected from as integers"),
        (NET + "[avgpool]\n[shortcut]\nfrom=-1,0\n", 7, "Expected one layer in from"),
        (NET + "[avgpool]\n[route]\nlayers=-1,-5\n", 7, "there are 1 above it. Received: -5"),
        (NET + "[avgpool]\n[route]\nlayers=\n", 7, "Expected layers as integers divided by commas"),
        (NET + "[maxpool]\nsize=2\nstride=2\n[upsample]\n[route]\nlayers=0,1\n", 10, "maps have one height and width"),
        (NET + "[avgpool]\n[route]\nlayers=0\ngroups=3\n", 8, "Expected groups to divide the channels"),
        (NET + "[avgpool]\n[route]\nlayers=0\ngroups=2\ngroup_id=2\n", 9, "Expected group_id as an integer in [0, 1]"),
        (NET + "[crop]\ncrop_height=9\ncrop_width=4\n", 6, "Expected crop_height within the map of 8×8×4"),
        (NET + "[connected]\noutput=0\n", 6, "Expected output as an integer ≥ 1"),
        (NET + "[lrn]\nsize=10\n", 6, "Expected a size of at most 9 for the 4 channels"),
        (NET + "[conv]\nfilters=9999\n[lrn]\nsize=9999\n", 8, "size of at most 1025 for the 9999 channels"),
        (NET + "[lrn]\nbeta=inf\n", 6, "Expected beta as a finite number"),
        (NET + "[dropout]\nprobability=1\n", 6, "Expected a probability below 1"),
        (NET + "[dropout]\nprobability=nan\n", 6, "Expected probability as a finite number in [0, 1]"),
        (NET + "[softmax]\ngroups=5\n", 6, "Expected groups to divide the 256 numbers"),
        (NET + "[softmax]\ntemperature=0\n", 6, "Expected a temperature above 0"),
        (NET + "[softmax]\ntree=9k.tree\n", 6, "A tree of classes is not supported"),
        (NET + "[avgpool]\n[cost]\ntype=mean\n", 7, "Unknown type"),
    ],
)
def test_the_line_of_what_cannot_work_is_named(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(darknet.CfgError) as caught:
        plan_of(tmp_path, text)
    assert re.match(rf"{re.escape(str(tmp_path))}/net\.cfg:{line}: ", str(caught.value)), str(caught.value)
    assert message in str(caught.value)


def test_maps_that_cannot_be_added_are_refused(tmp_path: Path) -> None:
    # 8×8 onto 4×2: half as high, a quarter as wide.
    text = NET + "[convolutional]\nsize=1\n[crop]\ncrop_height=4\ncrop_width=2\n[shortcut]\nfrom=0\n"
    with pytest.raises(darknet.CfgError, match=r"net.cfg:11: .*as many times as high .* Received: 8×8×1"):
        plan_of(tmp_path, text)


def test_a_file_of_other_bytes_is_refused_at_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "net.weights"
    file.write_bytes(bytes(range(256)) * 1000)
    with pytest.raises(darknet.CfgError, match=r"net.weights:\d+: Expected \[net\]") as caught:
        read_plan(file)
    assert len(str(caught.value)) < 600


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing.cfg"):
        darknet.load(tmp_path / "missing.cfg")


def test_blanks_and_comments_mean_nothing(tmp_path: Path) -> None:
    text = "  [ network ] \n; of old\nheight = 8 # rows\nwidth\t=\t8\r\nchannels=4\n\n[conv]\n filters = 6\n size=1\n"
    assert plan_of(tmp_path, text) == [Map(8, 8, 6)]


def test_comments_may_be_in_any_encoding(tmp_path: Path) -> None:
    file = tmp_path / "net.cfg"
    file.write_bytes(NET.encode() + b"# caf\xe9\n[avgpool]\n")
    assert read_plan(file).steps[0].output == Map(1, 1, 4)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("[convolutional]\nfilters=6\nsize=3\nstride=2\npad=1\n", Map(4, 4, 6)),
        ("[convolutional]\nfilters=6\nsize=3\nstride=2\n", Map(3, 3, 6)),
        ("[convolutional]\nfilters=6\nsize=4\npad=1\n", Map(9, 9, 6)),
        ("[convolutional]\nfilters=6\nsize=3\npadding=2\n", Map(10, 10, 6)),
        ("[convolutional]\nfilters=6\nsize=3\npad=1\npadding=7\n", Map(8, 8, 6)),
        ("[convolutional]\nfilters=6\nsize=3\npad=2\n", Map(8, 8, 6)),
        ("[convolutional]\n", Map(8, 8, 1)),
        ("[maxpool]\nsize=2\nstride=2\n", Map(4, 4, 4)),
        ("[maxpool]\nsize=3\nstride=2\n", Map(4, 4, 4)),
        ("[maxpool]\nsize=3\nstride=2\npadding=0\n", Map(3, 3, 4)),
        ("[maxpool]\nstride=4\n", Map(2, 2, 4)),
        ("[maxpool]\nsize=5\n", Map(8, 8, 4)),
        ("[avgpool]\n", Map(1, 1, 4)),
        ("[upsample]\n", Map(16, 16, 4)),
        ("[connected]\noutput=10\n", Map(1, 1, 10)),
        ("[crop]\ncrop_height=5\ncrop_width=6\n", Map(5, 6, 4)),
        ("[dropout]\n", Map(8, 8, 4)),
        ("[lrn]\n", Map(8, 8, 4)),
    ],
)
def test_sizes_are_darknets(tmp_path: Path, section: str, expected: Map) -> None:
    assert plan_of(tmp_path, NET + section) == [expected]


def test_training_settings_are_read_over(tmp_path: Path) -> None:
    text = NET.replace("height", "batch=64\nsubdivisions=8\npolicy=steps\nsteps=1,2\nscales=.1,.1\nhue=.1\nheight")
    plan_of(tmp_path, text + "[avgpool]\nstopbackward=1\n[cost]\ntype=sse\n")


def test_training_settings_may_be_said_twice(tmp_path: Path) -> None:
    """As in some of Darknet's own files, with one `batch` for training and one for testing."""
    text = NET.replace("height", "batch=128\nsubdivisions=8\n batch=1\n subdivisions=1\nheight")
    assert plan_of(tmp_path, text + "[avgpool]\n") == [Map(1, 1, 4)]
    with pytest.raises(darknet.CfgError, match=r"net.cfg:2: .*height= in line 2 and again in line 5"):
        plan_of(tmp_path, NET + "height=8\n[avgpool]\n")
