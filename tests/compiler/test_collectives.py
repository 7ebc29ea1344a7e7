"""Traffic read from a program's text: ring volumes, loops and their strides, collectives in pieces."""

import jax
import pytest

from fae_jax.compiler.collectives import collectives, parse, turns

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%piece.1 (p: bf16[2,64]) -> (bf16[16,64], u32[]) {
  %p = bf16[2,64]{1,0:T(8,128)} parameter(0)
  %gather.1 = bf16[16,64]{1,0:T(8,128)S(1)} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8]
  ROOT %start = (bf16[16,64]{1,0}, u32[]{:S(2)}) custom-call(%gather.1), custom_call_target="AllGatherStart"
}

%piece.2 (p: bf16[2,64]) -> bf16[16,64] {
  %p.2 = bf16[2,64]{1,0:T(8,128)} parameter(0)
  ROOT %gather.2 = bf16[16,64]{1,0:T(8,128)S(1)} all-gather(%p.2), channel_id=7, replica_groups=[1,8]<=[8]
}

%condition (c: (s32[], bf16[2,64])) -> pred[] {
  %c = (s32[]{:T(128)}, bf16[2,64]{1,0}) parameter(0)
  %bound = s32[]{:T(128)} constant(28)
  %counter = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %bound), direction=LT
}

%body (s: (s32[], bf16[2,64])) -> (s32[], bf16[2,64]) {
  %s = (s32[]{:T(128)}, bf16[2,64]{1,0}) parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %i.1 = s32[]{:T(128)} add(%i, %one)
  %i.2 = s32[]{:T(128)} add(%i.1, %one)
  %x = bf16[2,64]{1,0} get-tuple-element(%s), index=1
  %begun = (bf16[16,64]{1,0}, u32[]{:S(2)}) fusion(%x), kind=kCustom, calls=%piece.1
  %ended = bf16[16,64]{1,0} fusion(%x), kind=kCustom, calls=%piece.2
  %sent = (bf16[2,64]{1,0}, bf16[2,64]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=9
  %there = bf16[2,64]{1,0} collective-permute-done(%sent)
  ROOT %next = (s32[]{:T(128)}, bf16[2,64]{1,0}) tuple(%i.2, %there)
}

ENTRY %main (x: bf16[2,64], g: f32[100]) -> f32[100] {
  %x.0 = bf16[2,64]{1,0} parameter(0)
  %g = f32[100]{0} parameter(1)
  %zero = s32[] constant(0)
  %begin = (s32[], bf16[2,64]{1,0}) tuple(%zero, %x.0)
  %loop = (s32[], bf16[2,64]{1,0}) while(%begin), condition=%condition, body=%body
  %scattered = f32[10]{0} reduce-scatter(%g), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %all = f32[100]{0} all-reduce(%g), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, to_apply=%add
}
"""


def test_rings_loops_and_pieces():
    traffic = collectives(PROGRAM, 8)
    assert traffic["all-gather"] == (14, 14 * 16 * 64 * 2 * 7 // 8)  # 28 in strides of 2; two pieces of one channel
    assert traffic["collective-permute"] == (14, 14 * 2 * 64 * 2)
    assert traffic["reduce-scatter"] == (1, 40 * 3)
    assert traffic["all-reduce"] == (1, 2 * 400 * 1 // 2)
    assert "all-to-all" not in traffic


def test_pieces_in_a_loop_between_start_and_end_are_one_collective():
    start = "  %begun.0 = (bf16[16,64]{1,0}, u32[]{:S(2)}) fusion(%x.0), kind=kCustom, calls=%piece.1\n"
    traffic = collectives(PROGRAM.replace("  %zero =", start + "  %zero ="), 8)
    assert traffic["all-gather"] == (1, 16 * 64 * 2 * 7 // 8)


def test_a_note_of_the_compiler_is_believed_and_nothing_known_counts_once():
    _, computations = parse(PROGRAM)
    loop = next(line for line in computations["main"] if line.operation == "while")
    assert turns(loop, computations) == 14
    noted = loop._replace(rest=loop.rest + ', backend_config={"known_trip_count":{"n":"5"}}')
    assert turns(noted, computations) == 5
    assert turns(loop._replace(rest="%begin), condition=%gone, body=%gone"), computations) == 1


def test_a_program_without_devices_sends_nothing():
    text = jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((4, 4), "float32")).compile().as_text()
    assert collectives(text, 1) == {}


@pytest.mark.parametrize("length", [3, 7])
def test_a_real_scan_turns_as_often_as_it_is_long(length: int):
    looped = lambda x: jax.lax.scan(lambda c, _: (jax.numpy.sin(c @ c), None), x, None, length=length)[0]
    text = jax.jit(looped).lower(jax.ShapeDtypeStruct((4, 4), "float32")).compile().as_text()
    _, computations = parse(text)
    loops = [line for lines in computations.values() for line in lines if line.operation == "while"]
    assert [turns(loop, computations) for loop in loops] == [length]
