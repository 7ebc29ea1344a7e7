"""A reader that checks a page of HTML."""

from html.parser import HTMLParser

VOID = {"br", "hr", "img", "input", "line", "link", "meta", "path"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where elements do not nest."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.within = ""  # id of the section that is read
        self.sections: dict[str, tuple[list[str], list[tuple[str, dict[str, str | None]]]]] = {}
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        if tag == "section":
            self.within = dict(attrs)["id"]
        self.keep(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def keep(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.sections.setdefault(self.within, ([], []))[1].append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.keep(tag, attrs)
        assert tag in VOID, f"<{tag}/> closes itself"

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag == "section":
            self.within = ""

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)
            self.sections.setdefault(self.within, ([], []))[0].append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, section: str) -> str:
        """The text of a section; "" where there is none of this id."""
        return " ".join(" ".join(self.sections.get(section, ([], []))[0]).split())

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if attributes.get("id")]

    def all(self, tag: str, section: str | None = None) -> list[dict[str, str | None]]:
        elements = self.elements if section is None else self.sections.get(section, ([], []))[1]
        return [attributes for name, attributes in elements if name == tag]
