"""Words for the things of photographs: COCO's 80 names and the sofa of VOC."""

from __future__ import annotations

GROUPS = {
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "person": "person",
    "street": "traffic_light fire_hydrant stop_sign parking_meter bench",
    "belongings": "backpack umbrella handbag tie suitcase",
    "sport": "frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard"
    " tennis_racket",
    "kitchen": "bottle wine_glass cup fork knife spoon bowl",
    "food": "banana apple sandwich orange broccoli carrot hot_dog pizza donut cake",
    "furniture": "chair couch potted_plant bed dining_table toilet sofa",
    "electronics": "tv laptop mouse remote keyboard cell_phone",
    "appliance": "microwave oven toaster sink refrigerator",
    "indoor": "book clock vase scissors teddy_bear hair_drier toothbrush",
}
GROUPS = {group: tuple(name.replace("_", " ") for name in names.split()) for group, names in GROUPS.items()}
"""Names by kind of thing. Names of one group are the hard ones to tell apart."""

GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
NAMES = tuple(GROUP_OF)

VOC = (
    *("person", "bird", "cat", "cow", "dog", "horse", "sheep", "airplane", "bicycle", "boat", "bus", "car"),
    *("motorcycle", "train", "bottle", "chair", "dining table", "potted plant", "sofa", "tv"),
)
"""The names that VOC labels. Of other names its pictures may hold unlabelled things."""

SAME = {"sofa": "couch", "couch": "sofa"}
"""Two names of one thing: neither may be asked for as absent where the other is."""

HYPERNYMS = {"animal": ("animal", "animals"), "vehicle": ("vehicle", "vehicles")}
"""The word for one and for several of a group. Other groups have no word that people use."""

SYNONYMS = {
    "person": ("human", "man or woman", "somebody"),
    "dog": ("puppy", "hound", "doggy"),
    "cat": ("kitten", "kitty", "feline"),
    "horse": ("pony", "stallion", "mare"),
    "cow": ("cattle", "bull", "calf"),
    "sheep": ("lamb", "ewe", "ram"),
    "sofa": ("couch", "settee"),
    "couch": ("sofa", "settee"),
    "tv": ("television", "screen", "monitor"),
    "dining table": ("table",),
    "potted plant": ("plant", "houseplant", "flower pot"),
    "motorcycle": ("motorbike", "motor cycle"),
    "bicycle": ("bike", "cycle"),
    "airplane": ("plane", "aircraft", "jet"),
    "car": ("automobile", "auto"),
    "truck": ("lorry", "pickup"),
    "train": ("locomotive",),
    "bus": ("coach",),
    "chair": ("seat",),
    "cell phone": ("phone", "smartphone", "mobile"),
    "refrigerator": ("fridge",),
    "donut": ("doughnut",),
    "bird": ("birdie",),
    "boat": ("ship", "vessel"),
    "laptop": ("notebook computer",),
    "cup": ("mug",),
    "sports ball": ("ball",),
    "remote": ("remote control",),
    "handbag": ("purse", "bag"),
    "tie": ("necktie",),
    "backpack": ("rucksack",),
    "suitcase": ("luggage",),
    "wine glass": ("glass",),
    "stop sign": ("road sign",),
    "teddy bear": ("stuffed bear", "plush bear"),
    "hair drier": ("hairdryer",),
    "oven": ("stove",),
    "bed": ("mattress",),
    "pizza": ("pie",),
}

IRREGULAR = {
    "person": "people",
    "man or woman": "men and women",
    "somebody": "persons",
    "sheep": "sheep",
    "mouse": "mice",
    "knife": "knives",
    "calf": "calves",
    "cattle": "cattle",
    "skis": "skis",
    "scissors": "scissors",
    "broccoli": "broccoli",
    "luggage": "luggage",
    "aircraft": "aircraft",
    "lorry": "lorries",
    "puppy": "puppies",
    "doggy": "doggies",
    "kitty": "kitties",
    "pony": "ponies",
}

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def plural(word: str) -> str:
    """`dogs`, `people`, `buses`, `toothbrushes`."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    return word + ("es" if word.endswith(("s", "sh", "ch", "x")) else "s")
