"""The keys of an experiment file, as tables.  Pure declarations; the reader and the reference are made from them."""

from __future__ import annotations

from meshctl.spec.shapes import AnyOf, Boolean, Choice, Duration, Integer, Key, ListOf, MapOf, Table, Text

_NAME = Text(what="a name")
_ANY = AnyOf(shapes=(Text(what="a scalar"), ListOf(item=Text()), MapOf(name=_NAME, value=Text())))
_IGNORED = MapOf(name=_NAME, value=_ANY)

MESH_PROVIDER = Table(
    id="provider-meshctl",
    title="a provider",
    doc="One of meshctl's own verbs, by the words of the command line; the verbs are below.",
    keys=(
        Key(name="type", shape=Choice(values=("meshctl",)), doc="The kind of provider.", required=True),
        Key(name="verb", shape=Text(what="a verb"), doc="Such as `inject fault`.", required=True),
        Key(name="arguments", shape=MapOf(name=_NAME, value=_ANY), doc="What the verb takes."),
    ),
)

PYTHON_PROVIDER = Table(
    id="provider-python",
    title="a provider",
    doc=(
        "The same verb in the form that `chaos run` takes too: `module` is `meshctl.chaostoolkit.actions` or "
        "`meshctl.chaostoolkit.probes`. Other modules are not imported: use `process`, or `chaos run`."
    ),
    keys=(
        Key(name="type", shape=Choice(values=("python",)), doc="The kind of provider.", required=True),
        Key(name="module", shape=Text(what="a module"), doc="The module.", required=True),
        Key(name="func", shape=Text(what="a function"), doc="The verb with underscores.", required=True),
        Key(name="arguments", shape=MapOf(name=_NAME, value=_ANY), doc="What the verb takes."),
    ),
)

HTTP_PROVIDER = Table(
    id="provider-http",
    title="a provider",
    doc="An HTTP request from outside the mesh. Answers with `status`, `headers` and `body`.",
    keys=(
        Key(name="type", shape=Choice(values=("http",)), doc="The kind of provider.", required=True),
        Key(name="url", shape=Text(what="a URL"), doc="Where to.", required=True),
        Key(name="method", shape=Text(what="an HTTP method"), doc="The method.", default="GET"),
        Key(name="headers", shape=MapOf(name=_NAME, value=Text()), doc="Headers."),
        Key(name="arguments", shape=_ANY, doc="The query of a GET; of others the body, as a form or as JSON."),
        Key(
            name="timeout",
            shape=AnyOf(shapes=(Duration(), ListOf(item=Duration(), minimum=2, maximum=2))),
            doc="For the whole answer, or for the connection and the answer.",
            default="10s",
        ),
    ),
)

PROCESS_PROVIDER = Table(
    id="provider-process",
    title="a provider",
    doc="A program. Answers with `status` (its exit code), `stdout` and `stderr`. It ends with the experiment.",
    keys=(
        Key(name="type", shape=Choice(values=("process",)), doc="The kind of provider.", required=True),
        Key(name="path", shape=Text(what="a program"), doc="The program.", required=True),
        Key(
            name="arguments",
            shape=AnyOf(shapes=(Text(what="a text"), ListOf(item=Text()), MapOf(name=_NAME, value=Text()))),
            doc="Its arguments; a text is left to a shell.",
        ),
        Key(name="timeout", shape=Duration(), doc="How long it may take; without it, as long as it wants."),
    ),
)

PROVIDERS = {
    "meshctl": MESH_PROVIDER,
    "python": PYTHON_PROVIDER,
    "http": HTTP_PROVIDER,
    "process": PROCESS_PROVIDER,
}

RANGE = Table(
    id="tolerance-range",
    title="a tolerance",
    doc="A number within bounds, which belong to it. `null` for a bound stands for none.",
    keys=(
        Key(name="type", shape=Choice(values=("range",)), doc="The kind of tolerance.", required=True),
        Key(name="range", shape=ListOf(item=_ANY), doc="The lower and the upper bound.", required=True),
        Key(name="target", shape=_NAME, doc="Which part of a mapping to look at."),
    ),
)

REGEX = Table(
    id="tolerance-regex",
    title="a tolerance",
    doc="A regular expression of Python that is found somewhere in the value.",
    keys=(
        Key(name="type", shape=Choice(values=("regex",)), doc="The kind of tolerance.", required=True),
        Key(name="pattern", shape=Text(what="a regular expression"), doc="The expression.", required=True),
        Key(name="target", shape=_NAME, doc="Which part of a mapping to look at."),
    ),
)

JSONPATH = Table(
    id="tolerance-jsonpath",
    title="a tolerance",
    doc="A path that finds something in the value, or in the JSON that it holds: `$.a.b`, `$['a']`, `[0]`, `[*]`.",
    keys=(
        Key(name="type", shape=Choice(values=("jsonpath",)), doc="The kind of tolerance.", required=True),
        Key(name="path", shape=Text(what="a JSON path"), doc="The path.", required=True),
        Key(name="expect", shape=_ANY, doc="What it finds: a scalar, or a list of all."),
        Key(name="count", shape=Integer(minimum=0, maximum=100_000), doc="How many values it finds."),
        Key(name="target", shape=_NAME, doc="Which part of a mapping to look at."),
    ),
)

TOLERANCES = {"range": RANGE, "regex": REGEX, "jsonpath": JSONPATH}

PAUSES = Table(
    id="pauses",
    title="`pauses`",
    doc="How long to wait around an activity.",
    keys=(
        Key(name="before", shape=Duration(zero=True), doc="Before it."),
        Key(name="after", shape=Duration(zero=True), doc="After it."),
    ),
)

ACTIVITY = Table(
    id="activity",
    title="an activity",
    doc="Something that is done (an action) or looked at (a probe).",
    keys=(
        Key(name="type", shape=Choice(values=("action", "probe")), doc="Which of the two.", required=True),
        Key(name="name", shape=Text(what="a name"), doc="Its name.", required=True),
        Key(
            name="provider",
            shape=AnyOf(shapes=(MESH_PROVIDER, PYTHON_PROVIDER, HTTP_PROVIDER, PROCESS_PROVIDER)),
            doc="What does it.",
            required=True,
        ),
        Key(
            name="tolerance",
            shape=AnyOf(shapes=(Text(what="a scalar"), ListOf(item=Text()), RANGE, REGEX, JSONPATH)),
            doc="What a probe may find. Probes of the hypothesis need one; those of the method may have one.",
        ),
        Key(name="background", shape=Boolean(), doc="Whether what follows does not wait for it.", default=False),
        Key(name="pauses", shape=PAUSES, doc="How long to wait around it."),
        Key(name="controls", shape=ListOf(item=_ANY), doc="Not supported."),
        Key(name="secrets", shape=_ANY, doc="Not supported."),
        Key(name="configuration", shape=_ANY, doc="Not read."),
    ),
)

REFERENCE = Table(
    id="reference",
    title="an activity",
    doc="An activity that stands elsewhere in the experiment, once more.",
    keys=(Key(name="ref", shape=_NAME, doc="Its name.", required=True),),
)

HYPOTHESIS = Table(
    id="hypothesis",
    title="`steady-state-hypothesis`",
    doc="What holds before the method, and is to hold after it. Every probe is run, so that all that deviates is seen.",
    keys=(
        Key(name="title", shape=Text(), doc="In words.", required=True),
        Key(name="probes", shape=ListOf(item=ACTIVITY), doc="What is looked at.", required=True),
        Key(name="controls", shape=ListOf(item=_ANY), doc="Not supported."),
    ),
)

RUNTIME_HYPOTHESIS = Table(
    id="runtime-hypothesis",
    title="`hypothesis`",
    doc="When the hypothesis is looked at.",
    keys=(
        Key(
            name="strategy",
            shape=Choice(
                values=(
                    "default",
                    "before-method-only",
                    "after-method-only",
                    "during-method-only",
                    "continuously",
                    "skip",
                )
            ),
            doc="`default` is before and after the method, `continuously` also again and again during it.",
            default="default",
        ),
        Key(name="frequency", shape=Duration(), doc="The pause between two looks during the method.", default="1s"),
    ),
)

RUNTIME_ROLLBACKS = Table(
    id="runtime-rollbacks",
    title="`rollbacks`",
    doc="When rollbacks are run.",
    keys=(Key(name="strategy", shape=Choice(values=("always",)), doc="There is no other.", default="always"),),
)

RUNTIME = Table(
    id="runtime",
    title="`runtime`",
    doc="How the experiment is run.",
    keys=(
        Key(name="hypothesis", shape=RUNTIME_HYPOTHESIS, doc="When the hypothesis is looked at."),
        Key(name="rollbacks", shape=RUNTIME_ROLLBACKS, doc="When rollbacks are run: always."),
    ),
)

VARIABLE = Table(
    id="variable",
    title="a value of `configuration`",
    doc="A value that comes from the environment.",
    keys=(
        Key(name="type", shape=Choice(values=("env",)), doc="The kind of value.", required=True),
        Key(name="key", shape=Text(what="the name of a variable"), doc="The variable.", required=True),
        Key(name="default", shape=Text(), doc="What holds where it is not set."),
        Key(
            name="env_var_type",
            shape=Choice(values=("str", "int", "float", "bool", "json")),
            doc="What it is read as.",
            default="str",
        ),
    ),
)

EXPERIMENT = Table(
    id="experiment",
    title="an experiment",
    doc="The file. YAML, or JSON.",
    keys=(
        Key(name="title", shape=Text(), doc="The question.", required=True),
        Key(name="description", shape=Text(), doc="Why it is asked.", required=True),
        Key(name="version", shape=Text(), doc="Not read."),
        Key(name="tags", shape=ListOf(item=Text()), doc="Words to find it by."),
        Key(name="configuration", shape=_IGNORED, doc="Values by name, for `${name}` in what follows."),
        Key(name="steady-state-hypothesis", shape=HYPOTHESIS, doc="What should hold."),
        Key(name="method", shape=ListOf(item=ACTIVITY), doc="What is done; may be empty.", required=True),
        Key(name="rollbacks", shape=ListOf(item=ACTIVITY), doc="What puts it right again; it is always run."),
        Key(name="runtime", shape=RUNTIME, doc="How the experiment is run."),
        Key(name="contributions", shape=_IGNORED, doc="Not read."),
        Key(name="extensions", shape=ListOf(item=_ANY), doc="Not read."),
        Key(name="controls", shape=ListOf(item=_ANY), doc="Not supported."),
        Key(name="secrets", shape=_IGNORED, doc="Not supported."),
    ),
)
