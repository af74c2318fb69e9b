"""The table of everyday things: a common English name, the pictures that stand for it, what it is.

A row reads `name: picture picture=colour`. The colour is written where nobody would dispute it;
elsewhere there is no question about colour. One name, one kind of thing: look-alikes are left out.
"""

from dataclasses import dataclass

_TABLE = {
    "animal": """
        cat: 🐈 🐱
        dog: 🐕 🐶
        mouse: 🐁=gray
        cow: 🐄 🐮
        pig: 🐖=pink 🐷=pink
        rabbit: 🐇 🐰
        horse: 🐎 🐴
        tiger: 🐅=orange 🐯=orange
        lion: 🦁
        monkey: 🐒=brown 🐵=brown
        bear: 🐻=brown
        panda: 🐼
        koala: 🐨=gray
        fox: 🦊=orange
        frog: 🐸=green
        elephant: 🐘=gray
        giraffe: 🦒
        zebra: 🦓
        sheep: 🐑
        camel: 🐫
        kangaroo: 🦘
        hedgehog: 🦔
        chicken: 🐔
        penguin: 🐧
        owl: 🦉=brown
        duck: 🦆
        parrot: 🦜
        flamingo: 🦩=pink
        bat: 🦇
        snake: 🐍=green
        turtle: 🐢=green
        crocodile: 🐊=green
        fish: 🐟=blue 🐠
        shark: 🦈
        whale: 🐋 🐳
        dolphin: 🐬=blue
        octopus: 🐙
        crab: 🦀
        snail: 🐌
        butterfly: 🦋=orange
        bee: 🐝
        ladybug: 🐞=red
        spider: 🕷
        ant: 🐜
        dinosaur: 🦕=green 🦖=green
        unicorn: 🦄
    """,
    "fruit": """
        apple: 🍎=red 🍏=green
        banana: 🍌=yellow
        lemon: 🍋=yellow
        pear: 🍐=green
        strawberry: 🍓=red
        watermelon: 🍉
        pineapple: 🍍
        kiwi: 🥝
        coconut: 🥥
    """,
    "vegetable": """
        tomato: 🍅=red
        carrot: 🥕=orange
        corn: 🌽=yellow
        broccoli: 🥦=green
        avocado: 🥑
        eggplant: 🍆=purple
        mushroom: 🍄
        pepper: 🌶=red
    """,
    "food": """
        bread: 🍞
        cheese: 🧀
        egg: 🥚 🍳
        hamburger: 🍔
        pizza: 🍕
        hot dog: 🌭
        donut: 🍩
        cookie: 🍪=brown
        cake: 🎂 🍰
        ice cream: 🍦 🍨
        lollipop: 🍭
        pretzel: 🥨
        popcorn: 🍿
        croissant: 🥐
    """,
    "vehicle": """
        car: 🚗=red 🚙=blue
        bus: 🚌
        truck: 🚚
        ambulance: 🚑
        tractor: 🚜
        bicycle: 🚲
        motorcycle: 🏍=red
        train: 🚂 🚆
        airplane: ✈ 🛩
        helicopter: 🚁=yellow
        rocket: 🚀
        sailboat: ⛵
        ship: 🚢
        scooter: 🛴
    """,
    "tool": """
        hammer: 🔨
        wrench: 🔧
        screwdriver: 🪛
        saw: 🪚
        axe: 🪓
        knife: 🔪
        key: 🔑 🗝
        lock: 🔒
        magnet: 🧲
        ladder: 🪜
        flashlight: 🔦
        pencil: ✏
        ruler: 📏=yellow
        broom: 🧹
        bucket: 🪣=blue
        telescope: 🔭
        microscope: 🔬
    """,
    "weather": """
        sun: ☀ 🌞
        cloud: ☁
        rainbow: 🌈
        umbrella: ☂ ☔
        snowflake: ❄=blue
        moon: 🌙
        snowman: ⛄
    """,
    "household": """
        house: 🏠 🏡
        chair: 🪑
        bed: 🛏
        door: 🚪=brown
        clock: ⏰ 🕒
        television: 📺
        phone: 📱 ☎
        computer: 💻 🖥
        camera: 📷
        book: 📕=red 📗=green 📘=blue
        envelope: ✉
        gift: 🎁
        balloon: 🎈=red
        candle: 🕯
        bathtub: 🛁
        cup: ☕
        spoon: 🥄
        basket: 🧺
        suitcase: 🧳
        light bulb: 💡=yellow
        bell: 🔔
    """,
    "plant": """
        tree: 🌳=green 🌲=green
        palm tree: 🌴
        cactus: 🌵=green
        rose: 🌹=red
        sunflower: 🌻
        flower: 🌸=pink 🌺
        tulip: 🌷=pink
        clover: 🍀=green
        leaf: 🍁=red
    """,
    "toy": """
        soccer ball: ⚽
        basketball: 🏀=orange
        football: 🏈=brown
        skateboard: 🛹
        kite: 🪁
        target: 🎯
        robot: 🤖
        ghost: 👻
        trophy: 🏆
    """,
    "instrument": """
        guitar: 🎸
        piano: 🎹
        drum: 🥁
        trumpet: 🎺
        violin: 🎻
        saxophone: 🎷
        microphone: 🎤
    """,
    "clothing": """
        hat: 🎩 👒
        shoe: 👟=blue 👞=brown
        boot: 👢
        dress: 👗=blue
        shirt: 👕=blue
        coat: 🧥=blue
        crown: 👑
        ring: 💍
        backpack: 🎒=red
    """,
    "place": """
        castle: 🏰
        mountain: ⛰ 🏔
        volcano: 🌋
        tent: ⛺
        globe: 🌍 🌎
        anchor: ⚓
        fire: 🔥
    """,
    "body part": """
        hand: ✋
        eye: 👁
        ear: 👂
        foot: 🦶
        tooth: 🦷
        bone: 🦴
        skull: 💀
    """,
}

_PLURALS = {
    "mouse": "mice", "sheep": "sheep", "fish": "fish", "leaf": "leaves", "knife": "knives", "foot": "feet",
    "tooth": "teeth", "bread": "loaves of bread", "corn": "ears of corn", "broccoli": "pieces of broccoli",
    "cheese": "pieces of cheese", "popcorn": "boxes of popcorn", "tomato": "tomatoes", "snowman": "snowmen",
    "volcano": "volcanoes", "strawberry": "strawberries", "butterfly": "butterflies", "trophy": "trophies",
}  # fmt: skip
_SINGULARS = {
    "bread": "a loaf of bread", "corn": "an ear of corn", "broccoli": "a piece of broccoli",
    "cheese": "a piece of cheese", "popcorn": "a box of popcorn", "unicorn": "a unicorn",
}  # fmt: skip

# What else a thing or a shape may be called, or has in it: such a name is never asked about as though it were absent.
_ALSO = {
    "rose": {"flower"}, "sunflower": {"flower"}, "tulip": {"flower"}, "palm tree": {"tree"}, "panda": {"bear"},
    "koala": {"bear"}, "boot": {"shoe"}, "sailboat": {"ship"}, "ambulance": {"car", "truck"}, "car": {"truck"},
    "bus": {"car", "truck"}, "tractor": {"car", "truck"}, "shark": {"fish"}, "whale": {"fish", "dolphin"},
    "dolphin": {"fish", "shark"}, "dress": {"shirt"}, "coat": {"shirt"}, "crown": {"hat"}, "clover": {"leaf", "flower"},
    "broccoli": {"tree"}, "tree": {"leaf"}, "volcano": {"mountain", "fire"}, "tent": {"house"}, "castle": {"house"},
    "camera": {"phone"}, "computer": {"television", "phone"}, "lion": {"cat"}, "tiger": {"cat"}, "fox": {"dog"},
    "violin": {"guitar"}, "axe": {"hammer"}, "sun": {"sunflower"}, "candle": {"fire"}, "house": {"tree", "door"},
    "snowman": {"hat", "carrot"}, "cake": {"candle", "strawberry"}, "hamburger": {"bread", "cheese", "tomato"},
    "pizza": {"cheese"}, "hot dog": {"bread"}, "croissant": {"bread"}, "trophy": {"cup"}, "saxophone": {"trumpet"},
    "donut": {"cookie", "circle"}, "target": {"arrow", "circle"}, "kite": {"diamond"}, "ring": {"circle", "oval"},
    "door": {"rectangle"}, "book": {"rectangle"}, "envelope": {"rectangle"}, "ruler": {"rectangle"},
    "phone": {"rectangle"}, "basketball": {"circle", "soccer ball"}, "soccer ball": {"circle", "football"},
    "globe": {"circle"}, "cookie": {"circle"}, "clock": {"circle"}, "coconut": {"circle"}, "egg": {"oval"},
    "football": {"oval"}, "square": {"rectangle", "diamond"}, "circle": {"oval"}, "mushroom": {"house"},
    "scooter": {"bicycle"}, "motorcycle": {"bicycle"}, "key": {"lock"}, "ghost": {"skull"},
    "flashlight": {"light bulb"},
}  # fmt: skip

PALE = {
    "cloud", "ghost", "tooth", "skull", "envelope", "snowman", "bone", "spoon", "sheep", "bathtub", "chicken",
    "rabbit", "ring", "soccer ball", "cup", "mouse", "shark", "elephant", "key",
}  # fmt: skip
DARK = {
    "spider", "ant", "bat", "piano", "phone", "computer", "camera", "television", "hat", "penguin", "coat",
    "microphone", "anchor", "crocodile", "whale", "bus", "eye", "zebra", "panda", "skateboard", "flashlight",
    "train", "clock", "globe", "football", "monkey", "bear", "owl", "mountain", "castle",
}  # fmt: skip

FLIES = {
    "owl", "duck", "parrot", "flamingo", "bat", "butterfly", "bee", "ladybug", "airplane", "helicopter", "rocket",
}  # fmt: skip
FOOD = ("fruit", "vegetable", "food")  # the categories of what can be eaten
SWIMS = {"fish", "shark", "whale", "dolphin", "octopus"}

# Things that usually stand together; a question about an absent thing is drawn from here first.
SETTINGS = (
    ("cow", "pig", "sheep", "horse", "chicken", "duck", "tractor", "dog", "house", "tree"),
    ("lion", "elephant", "giraffe", "zebra", "monkey", "crocodile", "snake", "parrot", "tiger"),
    ("fish", "shark", "whale", "dolphin", "octopus", "crab", "turtle", "sailboat", "ship", "anchor"),
    ("bee", "butterfly", "ladybug", "spider", "ant", "snail", "flower", "rose", "tulip", "sunflower", "leaf", "clover"),
    ("apple", "banana", "lemon", "pear", "strawberry", "watermelon", "pineapple", "kiwi", "coconut"),
    ("tomato", "carrot", "corn", "broccoli", "avocado", "eggplant", "mushroom", "pepper", "cheese", "bread", "egg"),
    ("hamburger", "pizza", "hot dog", "popcorn", "donut", "cookie", "cake", "ice cream", "lollipop", "pretzel"),
    ("cup", "bread", "croissant", "egg", "cheese", "spoon", "knife", "banana", "cake"),
    ("car", "bus", "truck", "ambulance", "bicycle", "motorcycle", "scooter", "train"),
    ("airplane", "helicopter", "rocket", "sailboat", "ship", "cloud", "sun", "moon"),
    ("hammer", "wrench", "screwdriver", "saw", "axe", "ladder", "ruler", "pencil", "bucket", "key", "lock"),
    ("chair", "bed", "door", "clock", "television", "phone", "computer", "bathtub", "candle", "light bulb", "broom"),
    ("guitar", "piano", "drum", "trumpet", "violin", "saxophone", "microphone", "bell"),
    ("hat", "shoe", "boot", "dress", "shirt", "coat", "crown", "ring", "backpack", "suitcase"),
    ("soccer ball", "basketball", "football", "skateboard", "kite", "target", "trophy", "bicycle"),
    ("sun", "cloud", "rainbow", "umbrella", "snowflake", "moon", "snowman", "tree", "mountain"),
    ("cat", "dog", "mouse", "rabbit", "fish", "bone", "house", "hedgehog", "fox"),
    ("bear", "panda", "koala", "kangaroo", "camel", "penguin", "owl", "frog", "fox", "hedgehog"),
    ("tent", "fire", "mountain", "tree", "moon", "backpack", "flashlight", "bear", "owl"),
    ("unicorn", "dinosaur", "castle", "crown", "ghost", "robot", "volcano", "rocket", "skull"),
    ("gift", "balloon", "cake", "candle", "envelope", "ice cream", "hat", "bell"),
    ("book", "pencil", "ruler", "globe", "backpack", "clock", "computer", "microscope", "telescope"),
)


@dataclass(frozen=True)
class Thing:
    """One kind of thing and the pictures of it: each a character of the emoji font and its colour, if clear."""

    name: str
    category: str
    glyphs: tuple[tuple[str, str | None], ...]

    @property
    def singular(self) -> str:
        return _SINGULARS.get(self.name) or f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    @property
    def plural(self) -> str:
        return _PLURALS.get(self.name) or self.name + ("es" if self.name.endswith(("s", "x", "ch", "sh")) else "s")


def _read() -> dict[str, Thing]:
    things = {}
    for category, rows in _TABLE.items():
        for row in rows.split("\n"):
            if not row.strip():
                continue
            name, pictures = row.strip().split(": ")
            glyphs = tuple((p.split("=")[0], p.split("=")[1] if "=" in p else None) for p in pictures.split())
            things[name] = Thing(name, category, glyphs)
    return things


THINGS = _read()
CATEGORIES = tuple(_TABLE)


def also(one: str, other: str) -> bool:
    """Whether somebody might give one of two things or shapes the name of the other, or find it in it."""
    return other in _ALSO.get(one, ()) or one in _ALSO.get(other, ())
