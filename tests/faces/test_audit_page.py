import base64
import json
import re
import sys
from datetime import date
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from audited import BORDER, CAST, MARK, MOVING, audited, finding, findings, numbers, photo, policy, report
from PIL import Image

import seewhy as sw
from seewhy import runfolder
from seewhy.audit.gate import judge
from seewhy.faces import audit_page, audit_pdf, effects
from seewhy.ledger import erase, open_ledger

EVIL = "<script>alert('x')</script>\"&"


def page_of(folder, **options):
    return sw.report(folder, **options).read_text("utf-8")


def pictures_on(page):
    return [Image.open(BytesIO(base64.b64decode(data))) for data in re.findall(r"data:image/\w+;base64,([^\"]+)", page)]


def rewritten(folder, change):
    """The same run with another findings.json."""
    file = folder / "findings.json"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(audited(tmp_path_factory.mktemp("audit")))


def test_the_verdict_comes_first_with_its_three_lines(page):
    start = page.index("Blocked by 2 findings")
    assert page.index(">blocked</p>") < start < page.index("Look at findings/") < page.index('id="findings"')


def test_findings_come_before_what_was_not_confirmed_and_those_that_block_first(page):
    at = [page.index(f'id="finding-{one}"') for one in (MARK, CAST, BORDER)]
    assert at == sorted(at)
    assert at[-1] < page.index('id="others"') < page.index("A small dark button was found")
    assert f'id="finding-{MOVING}"' not in page
    assert page.count('<details class="sw-fold"><summary><span class="sw-verdict sw-is-refuted">') == 2


def test_an_accepted_finding_says_by_whom_why_and_how_long(page):
    own = page[page.index(f'id="finding-{BORDER}"') : page.index('id="others"')]
    assert "Accepted by A. Person until 2099-01-31: every supplier scans with a border" in own
    assert ">blocks<" not in own
    assert page.count(">blocks<") == 2


def test_every_effect_stands_with_interval_n_and_control(page):
    own = page[page.index(f'id="finding-{MARK}"') : page.index(f'id="finding-{CAST}"')]
    for said in ("+1.92 [+1.71, +2.13]", "+0.02 [-0.03, +0.07]", "-1.63 [-1.93, -1.33]", "n = 24", "n = 19", "0.31"):
        assert said in own
    assert "it goes with seller = north" in own


def test_strips_show_scores_and_what_changed(page):
    own = page[page.index(f'id="finding-{MARK}"') : page.index(f'id="finding-{CAST}"')]
    assert own.count("<figure") == 2 * audit_page.STRIPS
    assert own.count("<img") == 4 * audit_page.STRIPS
    assert "<b>0.93</b>" in own
    assert "<b>0.41</b><em>-0.52</em>" in own
    assert "probability of coat" in own


def test_what_was_not_tested_and_how_to_repeat_it_are_said(page):
    for said in (
        "0.31 logits",
        "none: too few images",
        "not tested: no candidate of this kind",
        "no boxes and no masks",
        "seewhy audit photos/ --model outerwear:net",
        "5f" * 32,
        "d4" * 32,
        "torch 2.8.0",
        "seed 0",
        "12,480 forward and 36 gradient rows, 3 min 34 s",
        "accuracy 0.925",
        "coat/broken.jpg: the file ends too early.",
        "rank correlation -0.31",
    ):
        assert said in page


def test_the_page_needs_nothing_from_outside_and_runs_nothing(page):
    assert not re.findall(r"https?://|@import|<script|<link|url\((?!#sw-)|\son\w+=", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', page))
    assert all(link.startswith(("#", "findings/")) for link in re.findall(r'href="([^"]*)"', page))


def test_every_link_on_the_page_leads_somewhere(page):
    assert {link[1:] for link in re.findall(r'href="(#[^"]*)"', page)} <= set(re.findall(r'id="([^"]*)"', page))


def test_the_page_is_whole(page):
    class Balance(HTMLParser):
        open_tags: list

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "rect", "br"):
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("rect",):
                assert self.open_tags.pop() == tag

    parser = Balance()
    parser.open_tags = []
    parser.feed(page)
    assert parser.open_tags == []


def test_pictures_are_small_jpeg_files_of_what_was_kept(tmp_path):
    page = page_of(audited(tmp_path, edge=300, strips=1))
    shown = pictures_on(page)
    photos = [one for one in shown if one.format == "JPEG"]
    assert photos
    assert all(max(one.size) <= 224 for one in photos)
    before = np.asarray(photos[0], dtype=float)
    assert np.abs(before - np.asarray(photo(0, mark=True, edge=300).resize((224, 224)), dtype=float)).mean() < 8


def test_a_mean_map_that_was_erased_is_a_blank_and_the_others_are_drawn(tmp_path):
    folder = audited(tmp_path)
    before = sw.report(folder).read_text().count("sw-blank")
    with open_ledger(folder) as ledger:
        erase(ledger, ledger.read("mean_map")[0].content["map"], reason="asked to", by="A. Engineer")
    assert sw.report(folder).read_text().count("sw-blank") > before


def test_mean_maps_are_drawn_at_their_own_grid_on_one_scale(page):
    maps = [np.asarray(one.convert("RGB")) for one in pictures_on(page) if one.format == "PNG"]
    assert {one.shape for one in maps} == {(7, 7, 3)}
    assert len(maps) == 6  # of jacket the model gets none wrong
    brightest = [one.astype(int).sum(2).max() for one in maps]
    assert max(brightest) == 0xFC + 0xF6 + 0xB8  # the top of the palette, in one map of each method
    assert brightest.count(max(brightest)) == 2
    assert "wrong, n = 0" in page


def test_without_pictures_scores_stay(tmp_path):
    folder = audited(tmp_path)
    page = page_of(folder, pictures=False)
    assert "data:image" not in page
    assert "<img" not in page
    assert "<b>0.41</b><em>-0.52</em>" in page
    assert "Pictures were left out" in page


def test_a_page_that_would_grow_too_large_leaves_pictures_out_and_says_how_many(tmp_path, monkeypatch):
    folder = audited(tmp_path)
    monkeypatch.setattr(audit_page, "BUDGET", {"JPEG": 20_000, "PNG": 500})
    page = page_of(folder)
    shown = sum(len(data) for data in re.findall(r"base64,([^\"]+)", page)) * 3 / 4
    assert 15_000 < shown <= 20_500
    assert {one.format for one in pictures_on(page)} == {"JPEG", "PNG"}
    (left_out,) = re.findall(r"(\d+) pictures were left out", page)
    assert int(left_out) + len(pictures_on(page)) == 3 * 2 * 2 * audit_page.STRIPS + 2 * 4 + 6


def test_the_budget_keeps_a_page_of_pictures_below_15_mb():
    assert sum(audit_page.BUDGET.values()) * 4 / 3 < 12_000_000


def test_whatever_is_written_in_a_name_is_shown_and_never_run(tmp_path):
    evil = finding(
        MARK,
        "local_pattern",
        "confirmed",
        EVIL,
        outputs=[EVIL],
        suspicion=[EVIL],
        images=[EVIL],
        where=[0, 0, 0.5, 0.5],
        effect=[
            {
                "output": EVIL,
                "unit": EVIL,
                "n": 3,
                "pasted": numbers(1, 0.1, 3),
                "fills": {EVIL: numbers(1, 1, 2), "b": numbers(1, 1, 2)},
            }
        ],
        details={"also": [EVIL]},
    )
    told = {"path": EVIL, "reason": EVIL}
    folder = audited(
        tmp_path, accepted=(), findings=[evil], not_tested=[EVIL], review_queue=[told], skipped=[told], n_skipped=1
    )
    with open_ledger(folder) as ledger:
        kept = ledger.keep_picture(photo(0))
        strip = {
            "finding": MARK,
            "path": EVIL,
            "pictures": {"before": kept},
            "said": {"before": 1.0},
            "output": EVIL,
            "unit": EVIL,
        }
        ledger.append("strip", "evil", strip)
        ledger.append("association", "evil", {"column": EVIL, "value": EVIL, "n": 2, "accuracy": numbers(0.5, 0.1, 2)})
        ledger.append("run", "evil", {"model": EVIL, "command": EVIL, "settings": {EVIL: EVIL}})
        ledger.append("setup", "evil", {"sentence": EVIL, "warning": EVIL})
        one_map = ledger.keep(np.ones((3, 3), np.float32))
        ledger.append("mean_map", "evil", {"name": EVIL, "right": True, "n": 2, "method": EVIL, "map": one_map})
    rewritten(folder, lambda found: found.update(verdict=EVIL, reasons=[EVIL] * 3))
    page = page_of(folder)
    assert "<script" not in page
    assert "alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;" in page
    assert page.count("&lt;script&gt;") > 20
    assert sw.report(folder, pdf=True).read_bytes().startswith(b"%PDF")


def test_an_id_that_could_lead_elsewhere_is_no_link(tmp_path):
    folder = audited(tmp_path / "run", strips=1)
    (tmp_path / "away").mkdir()
    rewritten(folder, lambda found: found["findings"][0].update(id="../../away"))
    assert 'href="../' not in page_of(folder)


def test_a_finding_links_to_its_folder_where_there_is_one(tmp_path):
    folder = audited(tmp_path, strips=1)
    assert "boxes (COCO)" not in page_of(folder)
    (folder / "findings" / MARK).mkdir(parents=True)
    assert f'href="findings/{MARK}/"' in page_of(folder)


def test_a_picture_that_was_erased_is_left_out_and_a_changed_one_is_an_error(tmp_path):
    folder = audited(tmp_path, strips=1)
    whole = len(pictures_on(page_of(folder)))
    with open_ledger(folder, read_only=True) as ledger:
        kept = folder / ledger.read("strip")[0].content["pictures"]["before"]
    content = kept.read_bytes()
    kept.unlink()
    assert len(pictures_on(page_of(folder))) < whole
    kept.write_bytes(content + b"x")
    with pytest.raises(sw.SeewhyError, match="was changed after it was written"):
        sw.report(folder)


def test_the_same_run_gives_the_same_page_and_leaves_the_ledger_alone(tmp_path):
    folder = audited(tmp_path, strips=1)
    with open_ledger(folder, read_only=True) as ledger:
        before = ledger.read()
    assert sw.report(folder).read_bytes() == sw.report(folder).read_bytes()
    assert sw.report(folder, pdf=True).read_bytes() == sw.report(folder, pdf=True).read_bytes()
    with open_ledger(folder, read_only=True) as ledger:
        assert ledger.read() == before


def test_of_what_a_resumed_run_measured_again_the_last_counts_and_every_part_costs(tmp_path):
    folder = audited(tmp_path, strips=1)
    with open_ledger(folder) as ledger:
        again = {"column": "seller", "value": "north", "n": 21, "accuracy": numbers(0.7, 0.1, 21)}
        ledger.append("association", "again", again)
        ledger.append("cost", "again", {"forward_rows": 7, "gradient_rows": 0, "seconds": 1.2})
    page = page_of(folder)
    assert "0.7 [0.6, 0.8]" in page
    assert "0.98 [0.89" not in page
    assert "cost of part 2" in page
    assert "7 forward and 0 gradient rows, 1 s" in page


def test_what_is_new_known_and_gone_against_an_earlier_run_is_marked(tmp_path):
    folder = audited(tmp_path, strips=1)
    earlier = report(findings=[*findings()[1:], {**findings()[0], "id": "00ld", "sentence": "An old one."}])
    judged = judge(report(), policy(folder), judge(earlier, policy(folder), None, date(2026, 1, 1)), date(2026, 1, 1))
    (folder / "findings.json").write_text(json.dumps(judged))
    page = page_of(folder)
    assert page.count(">new<") == 1
    assert page.count(">known<") == 2
    assert "Gone since the earlier run" in page
    assert "An old one." in page


@pytest.mark.parametrize("verdict", ["pass", "inconclusive", "incomplete"])
def test_an_audit_that_found_nothing_says_what_it_could_not_have_seen(tmp_path, verdict):
    folder = audited(tmp_path, accepted=(), findings=[], review_queue=[], skipped=[], n_skipped=0)
    rewritten(folder, lambda found: found.update(verdict=verdict))
    page = page_of(folder)
    assert f"sw-is-{verdict}" in page
    assert "Nothing was confirmed" in page
    assert 'id="others"' not in page
    assert "No image stands out." in page


def test_a_run_with_little_in_its_ledger_has_a_page_that_says_so(tmp_path):
    root = runfolder.open_folder(tmp_path)
    judged = judge(report(findings=[], detectable_effect={}), policy(root), None, date(2026, 1, 1))
    (root / "findings.json").write_text(json.dumps(judged))
    with pytest.raises(sw.UsageError, match="holds no ledger"):
        sw.report(root)
    open_ledger(root).close()
    page = page_of(root)
    for said in ("This run holds no mean map", "No metadata was given", "None in this run", "none was tried"):
        assert said in page
    assert sw.report(root, pdf=True).read_bytes().startswith(b"%PDF")


def test_a_report_that_lacks_what_every_report_has_is_a_clear_error(tmp_path):
    folder = rewritten(audited(tmp_path, strips=1), lambda found: found.pop("reasons"))
    with pytest.raises(sw.SeewhyError, match=r"findings.json or a record lacks .*reasons"):
        sw.report(folder)


def test_a_folder_without_an_audit_has_no_pdf_and_no_private_page(tmp_path):
    root = runfolder.open_folder(tmp_path)
    for options in ({"pdf": True}, {"pictures": False}):
        with pytest.raises(sw.UsageError, match="holds no finished audit"):
            sw.report(root, **options)


def test_file_names_that_are_no_text_do_not_stop_the_page(tmp_path):
    folder = audited(tmp_path, strips=1, review_queue=[{"path": "caf\udce9.jpg", "reason": "look"}])
    assert "caf\\udce9.jpg" in page_of(folder)


def test_an_interval_stands_where_its_numbers_say():
    shown = effects.effect(
        {
            "output": "coat",
            "unit": "logit",
            "n": 9,
            "pasted": {"value": 2.0, "low": 1.0, "high": 3.0},
            "unrelated": {"largest": 1.0, "pieces": 19},
        }
    )
    (line,) = shown["lines"]
    assert line["n"] == 9
    low, high = -1.0 - 0.2, 3.0 + 0.2  # 5 % of air at either end
    assert line["bar"]["left"] == pytest.approx(100 * (1 - low) / (high - low), abs=0.01)
    assert line["bar"]["left"] + line["bar"]["width"] == pytest.approx(100 * (3 - low) / (high - low), abs=0.02)
    assert line["bar"]["middle"] == pytest.approx(100 * (2 - low) / (high - low), abs=0.01)
    assert shown["zero"] == pytest.approx(100 * (0 - low) / (high - low), abs=0.01)
    assert shown["chance"]["left"] == pytest.approx(100 * (-1 - low) / (high - low), abs=0.01)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (None, "not measured"),
        ({"value": None, "low": None, "high": None}, "none"),
        ({"value": 0.5, "low": None, "high": None}, "+0.5"),
        ({"value": -0.5, "low": -1.0, "high": 0.0}, "-0.5 [-1, 0]"),
    ],
)
def test_a_change_is_told_with_its_sign_and_what_is_missing_as_missing(numbers, said):
    assert effects.change(numbers) == said
    found = {"output": "y", "unit": "score", "n": 1, "pasted": numbers}
    assert len(effects.effect(found)["lines"]) == (numbers is not None)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ([0.7, 0.8, 1, 1], "the lower right corner, 30 % x 20 % of the photo"),
        ([0, 0, 1, 0.1], "the upper edge, 100 % x 10 % of the photo"),
        ([0.4, 0.4, 0.6, 0.6], "the middle, 20 % x 20 % of the photo"),
        (None, "at places that differ"),
    ],
)
def test_a_place_is_told_in_words(where, said):
    assert effects.place(where, "local_pattern") == said


# --- the PDF


def images_in(pdf):
    return len(re.findall(rb"/Subtype /Image", pdf))


def test_the_pdf_holds_the_strips_and_without_pictures_none(tmp_path):
    folder = audited(tmp_path, strips=1)
    written = sw.report(folder, pdf=True)
    assert written.name == "report.pdf"
    assert images_in(written.read_bytes()) == 2 + 3 * 2  # the findings share the two photos as they were
    assert images_in(sw.report(folder, pdf=True, pictures=False).read_bytes()) == 0


def test_a_sentence_longer_than_a_page_and_many_findings_still_make_a_pdf(tmp_path):
    long = [finding(f"l0{i:04x}", "place", "confirmed", "word " * 1500, where=[0, 0, 1, 0.1]) for i in range(2)]
    folder = audited(tmp_path, accepted=(), findings=long, strips=1)
    assert len(re.findall(rb"/Type /Page\b", sw.report(folder, pdf=True).read_bytes())) > 4


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("a < b & c", "a &lt; b &amp; c"),
        ("18 Å ± 2", "18 Å ± 2"),
        ("纸箱", "\\u7eb8\\u7bb1"),
        ("кот", "\\u043a\\u043e\\u0442"),
        ("\U0001f431", "\\U0001f431"),
    ],
)
def test_every_letter_of_a_name_shows_in_the_pdf_or_is_written_as_its_code(text, markup):
    assert audit_pdf.Paper().plain(text) == markup


def test_without_reportlab_the_install_line_is_given(tmp_path, monkeypatch):
    folder = audited(tmp_path, strips=1)
    monkeypatch.setitem(sys.modules, "reportlab.platypus", None)
    with pytest.raises(sw.MissingExtraError, match=r"pip install 'seewhy\[pdf\]'"):
        sw.report(folder, pdf=True)


def test_the_command_writes_pages_and_pdf(tmp_path, capsys):
    from typer.testing import CliRunner

    from seewhy.faces.cli import app

    folder = audited(tmp_path, strips=1)
    done = CliRunner().invoke(app, ["report", str(folder), "--no-pictures"])
    assert done.stdout.strip().endswith("index.html")
    assert "data:image" not in (folder / "index.html").read_text()
    done = CliRunner().invoke(app, ["report", str(folder), "--pdf", "--json"])
    assert json.loads(done.stdout)["page"].endswith("report.pdf")
