"""The fonts the pictures are drawn with: which Debian package has them, under which licence, and on which side of the split.

No font file, and nothing made from one except drawn pictures, goes into an image or into this repository.
The split is by family: every face of a family in CHECK was kept out of training, and so was every font that shares its
design (Cousine has the shapes of Liberation Mono, Nimbus Sans those of FreeSans), so that "unseen" means unseen.
Fonts whose capitals or figures are drawn small (Go Smallcaps, Vollkorn) and hairline faces are left out of both sides.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/usr/share/fonts")


@dataclass(frozen=True)
class Family:
    """One family: the faces are file names without folder, all of one package."""

    name: str
    package: str
    licence: str
    folder: str
    faces: tuple[str, ...]

    def files(self) -> list[Path]:
        return [ROOT / self.folder / face for face in self.faces]


def _faces(stem: str, styles: str, suffix: str = "ttf") -> tuple[str, ...]:
    return tuple(f"{stem}{style}.{suffix}".replace("_", " ") for style in styles.split())


VERA = "Bitstream Vera"
GPL_FONT = "GPL-2 with font exception"
GPL3_FONT = "GPL-3+ with font exception"
OFL = "OFL-1.1"
APACHE = "Apache-2.0"

_DEJAVU = ("fonts-dejavu-core", VERA, "truetype/dejavu")
_LIBERATION = ("fonts-liberation", GPL_FONT, "truetype/liberation")
_FREEFONT = ("fonts-freefont-ttf", GPL3_FONT, "truetype/freefont")
_FOUR = "-Regular -Bold -Italic -BoldItalic"

# Measured on, never trained on. These three packages are all that ./check needs.
CHECK = (
    Family("DejaVu Serif", *_DEJAVU, ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf")),
    Family("Liberation Mono", *_LIBERATION, _faces("LiberationMono", _FOUR)),
    Family("FreeSans", *_FREEFONT, ("FreeSans.ttf", *_faces("FreeSans", "Bold Oblique BoldOblique"))),
)

TRAIN = (
    Family("DejaVu Sans", *_DEJAVU, ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")),
    Family("DejaVu Sans Mono", *_DEJAVU, ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")),
    Family("Liberation Sans", *_LIBERATION, _faces("LiberationSans", _FOUR)),
    Family("Liberation Sans Narrow", *_LIBERATION, _faces("LiberationSansNarrow", _FOUR)),
    Family("Liberation Serif", *_LIBERATION, _faces("LiberationSerif", _FOUR)),
    Family("FreeMono", *_FREEFONT, ("FreeMono.ttf", *_faces("FreeMono", "Bold Oblique BoldOblique"))),
    Family("FreeSerif", *_FREEFONT, ("FreeSerif.ttf", *_faces("FreeSerif", "Bold Italic BoldItalic"))),
    Family("Roboto", "fonts-roboto-unhinted", APACHE, "truetype/roboto/unhinted/RobotoTTF",
           _faces("Roboto", "-Light -LightItalic -Regular -Italic -Bold -BoldItalic -Black")),
    Family("Roboto Condensed", "fonts-roboto-unhinted", APACHE, "truetype/roboto/unhinted",
           _faces("RobotoCondensed", "-Light -Regular -Italic -Bold")),
    Family("Open Sans", "fonts-open-sans", APACHE, "truetype/open-sans",
           _faces("OpenSans", "-Light -Regular -Italic -Semibold -Bold -ExtraBold -CondBold")),
    Family("Lato", "fonts-lato", OFL, "truetype/lato",
           _faces("Lato", "-Light -Regular -Italic -Bold -BoldItalic -Black")),
    Family("Hack", "fonts-hack", "Expat and Bitstream Vera", "truetype/hack", _faces("Hack", _FOUR)),
    Family("Caladea", "fonts-crosextra-caladea", APACHE, "truetype/crosextra", _faces("Caladea", _FOUR)),
    Family("Inconsolata", "fonts-inconsolata", "OFL-1.0", "truetype/inconsolata", ("Inconsolata.otf",)),
    Family("JetBrains Mono", "fonts-jetbrains-mono", APACHE, "truetype/jetbrains-mono",
           _faces("JetBrainsMono", "-Light -Regular -Italic -Bold -ExtraBold")),
    Family("Cabin", "fonts-cabin", OFL, "opentype/cabin", _faces("Cabin", "-Regular -Italic -Bold -BoldItalic", "otf")),
    Family("Go", "fonts-go", "BSD-3-Clause", "fonts-go", _faces("Go", _FOUR.replace("BoldItalic", "Bold-Italic"))),
    Family("Go Mono", "fonts-go", "BSD-3-Clause", "fonts-go",
           ("Go-Mono.ttf", *_faces("Go-Mono", "-Bold -Italic -Bold-Italic"))),
    Family("Dosis", "fonts-dosis", OFL, "opentype/dosis", _faces("Dosis", "-Light -Medium -Bold", "otf")),
    Family("Play", "fonts-play", OFL, "truetype/play", _faces("Play", "-Regular -Bold")),
    Family("B612", "fonts-b612", OFL, "opentype/b612", _faces("B612", _FOUR, "otf")),
    Family("B612 Mono", "fonts-b612", OFL, "opentype/b612", _faces("B612Mono", _FOUR, "otf")),
    Family("Courier Prime", "fonts-courier-prime", OFL, "opentype/courier-prime",
           ("Courier Prime.otf", *_faces("Courier_Prime_", "Bold Italic Bold_Italic Code", "otf"))),
    Family("Courier Prime Sans", "fonts-courier-prime", OFL, "opentype/courier-prime",
           ("Courier Prime Sans.otf", *_faces("Courier_Prime_Sans_", "Bold Italic", "otf"))),
    Family("Quicksand", "fonts-quicksand", OFL, "truetype/quicksand", _faces("Quicksand", "-Light -Regular -Bold")),
    Family("Comic Neue", "fonts-comic-neue", OFL, "opentype/comic-neue",
           _faces("ComicNeue", "-Regular -Bold -Italic -Light", "otf")),
)


def packages(families: tuple[Family, ...]) -> list[str]:
    """The Debian packages of these families, each once, in order."""
    return list(dict.fromkeys(family.package for family in families))


def missing_packages(families: tuple[Family, ...]) -> dict[str, list[Path]]:
    """Package → font files of it that are not on this machine."""
    missing: dict[str, list[Path]] = {}
    for family in families:
        absent = [file for file in family.files() if not file.is_file()]
        if absent:
            missing.setdefault(family.package, []).extend(absent)
    return missing


def require(families: tuple[Family, ...]) -> None:
    """Ends the program with the packages to install if a font is missing."""
    missing = missing_packages(families)
    if missing:
        lines = [f"  {package}: {', '.join(str(f) for f in files)}" for package, files in missing.items()]
        raise SystemExit(
            "fonts are missing:\n" + "\n".join(lines) + f"\ninstall them: apt-get install {' '.join(missing)}"
        )
