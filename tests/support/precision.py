"""Which dtypes a program computes in."""

import jax.extend

ALWAYS_FLOAT32 = ("exp", "rsqrt", "reduce_max", "reduce_sum", "logistic")
"""What softmax, statistics of norms and the networks of the embeddings consist of."""


def equations(jaxpr):
    """Every equation of a program, those of its loops and calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def check_float32(program, also: tuple[str, ...] = ()) -> None:
    """The operations of `ALWAYS_FLOAT32` and `also` are there, in float32; matrix products are in both dtypes."""
    found = dict.fromkeys((*ALWAYS_FLOAT32, *also), 0)
    matrix_products = set()
    for equation in equations(program.jaxpr):
        dtypes = {str(variable.aval.dtype) for variable in (*equation.invars, *equation.outvars)}
        if equation.primitive.name in found:
            found[equation.primitive.name] += 1
            assert dtypes == {"float32"}, equation
        if equation.primitive.name == "dot_general":
            matrix_products |= dtypes
    assert min(found.values()) > 0, found
    assert matrix_products == {"bfloat16", "float32"}
