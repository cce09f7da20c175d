"""The words and phrases of the generated rows. A name in braces stands for a random number or word."""

THINGS = """
apples pears mangoes kiwis plums robins owls quails ravens hawks vans trucks sedans buses tractors novels
atlases poems diaries manuals violins flutes drums harps cellos lamps chairs desks shelves mirrors roses
tulips lilies
""".split()
PEOPLE = """
Ada Boris Chiara Deniz Elif Farid Grace Hugo Ines Jonas Keiko Luis Mara Nils Olga Priya
""".split()
PLACES = """
market library museum harbour school garage theatre station bakery farm workshop clinic garden port
""".split()
WORDS = """
bright quiet narrow early distant hollow gentle copper silver winter summer evening northern southern crowded
ancient modern painted wooden broken polished hidden open closed steep shallow rapid patient careful curious
""".split()
OPENINGS = (
    "Okay, so I have this problem about {topic}.",
    "Alright, let me try to work through this step by step.",
    "Hmm, let me see what is asked here: {topic}.",
    "Okay, let's start with what the question says about {topic}.",
)
TURNS = (
    "Wait, let me check that again.",
    "Wait, no. That can't be right, because {a} is more than {b}.",
    "Hmm, but what if I read it the other way round?",
    "Alternatively, I could count from the other end.",
    "Let me double-check that with other numbers.",
    "Wait a second, did I use {thing} twice?",
    "But hold on, the problem says {thing}, not {other}.",
    "Hmm, is that the only way to do it?",
)
SENTENCES = (
    "So {name} has {a} {thing} and {b} {other}.",
    "If {a} goes to {b}, then {c} is what remains.",
    "That means the {word} {thing} come before the {other}.",
    "Adding {a} and {b} gives {sum}.",
    "I remember that {a} times {b} is {product}, i.e. more than {c}.",
    "Since {name} is at the {place}, {other} are out.",
    "Dr. {name} said that about 3.5 of {a} are {word}.",
    "Now, {sum} minus {b} is {a}, so this fits.",
    "The {place} has {a} {thing}, right?",
    "First, I put the {thing} in place {b}.",
    "So far, so good!",
    "Both \\( x = {a} \\) and \\( y = {b} \\) satisfy the first condition.",
    "This leaves $\\frac{{{a}}}{{{sum}}}$ of it.",
)
LISTS = (
    "1. {name}: {a} {thing}.\n2. {other}: {b} of them. All {word}.\n3. The rest, {sum}.",
    "- {thing} > {other}\n- {other} > {word} ones\n- P({a}) = {b}",
    "**Step {a}:** put {thing} first.\n**Step {b}:** stop.",
)
LATEX = (
    "\\[\n{a} + {b} = {sum}\n\\]",
    "\\[ \\binom{{{sum}}}{{{b}}} \\cdot {a} = x \\]",
    "$$\nx^2 - {sum}x + {product} = 0\n$$",
    "\\begin{{align*}}\nx + y &= {sum} \\\\\nx - y &= {a}\n\\end{{align*}}",
)
CODE = (
    "```python\ndef total(items):\n    result = {a}\n    for item in items:\n\n        result += item\n```",
    "```\n{a} {b} {sum}\n{thing} -> {other}\n```",
)
