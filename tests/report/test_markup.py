"""HTML from values: what is text stays text."""

from fae_jax.report.markup import Markup, join, render, tag


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "a < b & c", tag("b", '"'), class_="n") == '<p class="n">a &lt; b &amp; c<b>&quot;</b></p>'
    assert render("<script>") == "&lt;script&gt;"
    assert render(Markup("<i></i>")) == "<i></i>"


def test_attributes_are_escaped_and_named_as_html_has_them():
    assert tag("a", "x", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;">x</a>'
    assert (
        tag("span", aria_hidden="true", data_step=3, class_="c")
        == '<span aria-hidden="true" data-step="3" class="c"></span>'
    )
    assert tag("img", src="s", hidden=True, alt=None, title=False) == '<img src="s" hidden/>'
    assert tag("meta", name="viewport") == '<meta name="viewport"/>'


def test_children_may_be_lists_numbers_or_nothing():
    assert tag("ul", [tag("li", n) for n in (1, 2)], None, ["a", None, ("b",)]) == "<ul><li>1</li><li>2</li>ab</ul>"
    assert join("<", 1.5, None, Markup("<br/>")) == "&lt;1.5<br/>"


def test_a_result_of_markup_is_markup_so_nothing_is_escaped_twice():
    once = tag("b", "&")
    assert isinstance(once, Markup) and isinstance(join(once), Markup)
    assert tag("p", once) == "<p><b>&amp;</b></p>"
    assert isinstance(render("x"), str) and not isinstance(once + "<i>", Markup)
