"""Four floats at a time, which the compiler does not find by itself where arrays may overlap."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

FOUR = ir.VectorType(ir.FloatType(), 4)


@intrinsic
def blend4(typing: Any, result: Any, at: Any, here: Any, start: Any, array: Any, places: Any, weights: Any) -> Any:
    """result[at:at+4] = here[start:start+4] + the sum of weight * array[place:place+4] over the places."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        total = builder.load(_four(context, builder, signature, values, 2, values[3]), align=4)
        indices = cgutils.unpack_tuple(builder, values[5])
        for index, weight in zip(indices, cgutils.unpack_tuple(builder, values[6]), strict=True):
            corner = builder.load(_four(context, builder, signature, values, 4, index), align=4)
            total = _multiply_add(builder, corner, weight, total)
        builder.store(total, _four(context, builder, signature, values, 0, values[1]), align=4)
        return context.get_dummy_value()

    return types.void(result, at, here, start, array, places, weights), generate


@intrinsic
def add4(typing: Any, result: Any, at: Any, weight: Any, array: Any, start: Any) -> Any:
    """result[at:at+4] += weight * array[start:start+4]."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _four(context, builder, signature, values, 0, values[1])
        given = builder.load(_four(context, builder, signature, values, 3, values[4]), align=4)
        builder.store(_multiply_add(builder, given, values[2], builder.load(place, align=4)), place, align=4)
        return context.get_dummy_value()

    return types.void(result, at, weight, array, start), generate


def _four(context: Any, builder: Any, signature: Any, values: Any, array: int, index: Any) -> Any:
    """Pointer to four floats of an argument."""
    data = context.make_array(signature.args[array])(context, builder, values[array]).data
    return builder.bitcast(builder.gep(data, [index]), FOUR.as_pointer())


def _multiply_add(builder: Any, four: Any, weight: Any, total: Any) -> Any:
    lane = builder.insert_element(ir.Constant(FOUR, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0))
    spread = builder.shuffle_vector(
        lane, ir.Constant(FOUR, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4)
    )
    return builder.fadd(builder.fmul(four, spread, flags=["contract"]), total, flags=["contract"])
