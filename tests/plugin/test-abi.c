/* tests/plugin/test-abi.c: the plugin ABI as numbers (x86-64): a plugin built once must work for ever.
 * A line here changes only together with HEDDLE_ABI; new members go to the end, where they change a size but no offset. */
#include "plugin/plugin.h"

#define SIZE(S, n) g_assert_cmpuint (sizeof (S), ==, n);
#define OFFSET(S, m, n) g_assert_cmpuint (G_STRUCT_OFFSET (S, m), ==, n);

static void
test_layout (void)
{
  SIZE (HeddlePlugin, 96)
  OFFSET (HeddlePlugin, magic, 0)
  OFFSET (HeddlePlugin, abi, 8)
  OFFSET (HeddlePlugin, size, 12)
  OFFSET (HeddlePlugin, kind, 16)
  OFFSET (HeddlePlugin, name, 24)
  OFFSET (HeddlePlugin, version, 32)
  OFFSET (HeddlePlugin, summary, 40)
  OFFSET (HeddlePlugin, license, 48)
  OFFSET (HeddlePlugin, build, 56)
  OFFSET (HeddlePlugin, options, 64)
  OFFSET (HeddlePlugin, option_size, 72)
  OFFSET (HeddlePlugin, iface_size, 76)
  OFFSET (HeddlePlugin, instance_size, 80)
  OFFSET (HeddlePlugin, iface, 88)
  SIZE (HeddleOption, 120)
  OFFSET (HeddleOption, name, 0)
  OFFSET (HeddleOption, type, 8)
  OFFSET (HeddleOption, flags, 12)
  OFFSET (HeddleOption, offset, 16)
  OFFSET (HeddleOption, int_default, 24)
  OFFSET (HeddleOption, int_min, 32)
  OFFSET (HeddleOption, int_max, 40)
  OFFSET (HeddleOption, float_default, 48)
  OFFSET (HeddleOption, float_min, 56)
  OFFSET (HeddleOption, float_max, 64)
  OFFSET (HeddleOption, text_default, 72)
  OFFSET (HeddleOption, values, 80)
  OFFSET (HeddleOption, word, 88)
  OFFSET (HeddleOption, word_value, 96)
  OFFSET (HeddleOption, unit, 104)
  OFFSET (HeddleOption, help, 112)
  SIZE (HeddleEnumValue, 24)
  OFFSET (HeddleEnumValue, value, 0)
  OFFSET (HeddleEnumValue, nick, 8)
  OFFSET (HeddleEnumValue, help, 16)
  SIZE (HeddleCore, 40)
  OFFSET (HeddleCore, size, 0)
  OFFSET (HeddleCore, version, 8)
  OFFSET (HeddleCore, seed, 16)
  OFFSET (HeddleCore, base_dir, 24)
  OFFSET (HeddleCore, message, 32)
  SIZE (HeddleField, 352)
  OFFSET (HeddleField, name, 0)
  OFFSET (HeddleField, dtype, 8)
  OFFSET (HeddleField, shape, 16)
  OFFSET (HeddleField, classes, 72)
  OFFSET (HeddleField, scale, 80)
  OFFSET (HeddleField, channels, 88)
  OFFSET (HeddleField, mean, 96)
  OFFSET (HeddleField, std, 224)
  SIZE (HeddleDatasetInfo, 2832)
  OFFSET (HeddleDatasetInfo, length, 0)
  OFFSET (HeddleDatasetInfo, n_fields, 8)
  OFFSET (HeddleDatasetInfo, field, 16)
  SIZE (HeddleDatasetIface, 32)
  OFFSET (HeddleDatasetIface, size, 0)
  OFFSET (HeddleDatasetIface, open, 8)
  OFFSET (HeddleDatasetIface, read, 16)
  OFFSET (HeddleDatasetIface, close, 24)
  SIZE (HeddleModelIface, 32)
  OFFSET (HeddleModelIface, size, 0)
  OFFSET (HeddleModelIface, outputs, 8)
  OFFSET (HeddleModelIface, build, 16)
  OFFSET (HeddleModelIface, check, 24)
  SIZE (HeddleUpdate, 48)
  OFFSET (HeddleUpdate, param, 0)
  OFFSET (HeddleUpdate, grad, 8)
  OFFSET (HeddleUpdate, step, 16)
  OFFSET (HeddleUpdate, decay, 24)
  OFFSET (HeddleUpdate, hyper, 32)
  OFFSET (HeddleUpdate, slot, 40)
  SIZE (HeddleOptimizerIface, 24)
  OFFSET (HeddleOptimizerIface, size, 0)
  OFFSET (HeddleOptimizerIface, update, 8)
  OFFSET (HeddleOptimizerIface, check, 16)
  SIZE (HeddleLoggerIface, 40)
  OFFSET (HeddleLoggerIface, size, 0)
  OFFSET (HeddleLoggerIface, open, 8)
  OFFSET (HeddleLoggerIface, event, 16)
  OFFSET (HeddleLoggerIface, close, 24)
  OFFSET (HeddleLoggerIface, interval, 32)
  SIZE (HeddleEventValue, 24)
  OFFSET (HeddleEventValue, name, 0)
  OFFSET (HeddleEventValue, brief, 8)
  OFFSET (HeddleEventValue, value, 16)
  SIZE (HeddleEvent, 544)
  OFFSET (HeddleEvent, size, 0)
  OFFSET (HeddleEvent, type, 4)
  OFFSET (HeddleEvent, epoch, 8)
  OFFSET (HeddleEvent, epochs, 16)
  OFFSET (HeddleEvent, batch, 24)
  OFFSET (HeddleEvent, batches, 32)
  OFFSET (HeddleEvent, step, 40)
  OFFSET (HeddleEvent, updates, 48)
  OFFSET (HeddleEvent, samples, 56)
  OFFSET (HeddleEvent, skipped, 64)
  OFFSET (HeddleEvent, seconds, 72)
  OFFSET (HeddleEvent, samples_per_second, 80)
  OFFSET (HeddleEvent, wait_share, 88)
  OFFSET (HeddleEvent, scale, 96)
  OFFSET (HeddleEvent, n_values, 104)
  OFFSET (HeddleEvent, values, 112)
  OFFSET (HeddleEvent, level, 496)
  OFFSET (HeddleEvent, text, 504)
  OFFSET (HeddleEvent, wait_part, 512)
  SIZE (HeddleCustomOp, 96)
  OFFSET (HeddleCustomOp, plugin, 8)
  OFFSET (HeddleCustomOp, min_in, 24)
  OFFSET (HeddleCustomOp, attr_size, 40)
  OFFSET (HeddleCustomOp, amp, 48)
  OFFSET (HeddleCustomOp, shape, 56)
  OFFSET (HeddleCustomOp, gradient, 64)
  OFFSET (HeddleCustomOp, print, 72)
  OFFSET (HeddleCustomOp, cpu, 80)
  OFFSET (HeddleCustomOp, cuda, 88)
  SIZE (HeddleCustomRun, 48)
  OFFSET (HeddleCustomRun, in, 16)
  OFFSET (HeddleCustomRun, attr, 32)
  OFFSET (HeddleCustomRun, parallel, 40)
  SIZE (HeddleCustomAttr, 264)
  SIZE (HeddleBuilderIface, 104)
  OFFSET (HeddleBuilderIface, size, 0)
  OFFSET (HeddleBuilderIface, emit, 8)
  OFFSET (HeddleBuilderIface, param, 16)
  OFFSET (HeddleBuilderIface, state, 24)
  OFFSET (HeddleBuilderIface, constant, 32)
  OFFSET (HeddleBuilderIface, shape, 40)
  OFFSET (HeddleBuilderIface, push, 48)
  OFFSET (HeddleBuilderIface, pop, 56)
  OFFSET (HeddleBuilderIface, training, 64)
  OFFSET (HeddleBuilderIface, fail, 72)
  OFFSET (HeddleBuilderIface, step, 80)
  OFFSET (HeddleBuilderIface, seed, 88)
  OFFSET (HeddleBuilderIface, key, 96)
  SIZE (HeddleShape, 56)
  OFFSET (HeddleShape, rank, 0)
  OFFSET (HeddleShape, size, 8)
  SIZE (HeddleTensor, 72)
  OFFSET (HeddleTensor, dtype, 0)
  OFFSET (HeddleTensor, shape, 8)
  OFFSET (HeddleTensor, data, 64)
  SIZE (HeddleRandom, 44)
  OFFSET (HeddleRandom, key, 0)
  OFFSET (HeddleRandom, counter, 8)
  OFFSET (HeddleRandom, block, 24)
  OFFSET (HeddleRandom, used, 40)
  SIZE (HeddleConvAttr, 192)
  OFFSET (HeddleConvAttr, stride, 0)
  OFFSET (HeddleConvAttr, padding, 16)
  OFFSET (HeddleConvAttr, dilation, 32)
  OFFSET (HeddleConvAttr, groups, 48)
  OFFSET (HeddleConvAttr, input, 56)
  OFFSET (HeddleConvAttr, weight, 112)
  OFFSET (HeddleConvAttr, bias, 168)
  OFFSET (HeddleConvAttr, output_padding, 176)
  SIZE (HeddlePoolAttr, 112)
  OFFSET (HeddlePoolAttr, kernel, 0)
  OFFSET (HeddlePoolAttr, stride, 16)
  OFFSET (HeddlePoolAttr, padding, 32)
  OFFSET (HeddlePoolAttr, exclude_padding, 48)
  OFFSET (HeddlePoolAttr, input, 56)
  SIZE (HeddleBatchNormAttr, 24)
  OFFSET (HeddleBatchNormAttr, eps, 0)
  OFFSET (HeddleBatchNormAttr, momentum, 8)
  OFFSET (HeddleBatchNormAttr, training, 16)
  SIZE (HeddleDropoutAttr, 24)
  OFFSET (HeddleDropoutAttr, probability, 0)
  OFFSET (HeddleDropoutAttr, seed, 8)
  OFFSET (HeddleDropoutAttr, key, 16)
  SIZE (HeddleInit, 24)
  OFFSET (HeddleInit, kind, 0)
  OFFSET (HeddleInit, a, 8)
  OFFSET (HeddleInit, b, 16)
}

/* The first 16 bytes of a descriptor never change, whatever the ABI's number. */
static void
test_head (void)
{
  g_assert_cmpuint (G_STRUCT_OFFSET (HeddlePlugin, magic), ==, 0);
  g_assert_cmpuint (G_STRUCT_OFFSET (HeddlePlugin, abi), ==, 8);
  g_assert_cmpuint (G_STRUCT_OFFSET (HeddlePlugin, size), ==, 12);
  g_assert_cmpint (HEDDLE_ABI, ==, 1);
}

static void
test_numbers (void)
{
  static const int codes[] = {
#define X(code, number, name) number,
    HEDDLE_OPS (X)
#undef X
  };
  g_assert_cmpint (HEDDLE_F32, ==, 1);
  g_assert_cmpint (HEDDLE_I64, ==, 6);
  g_assert_cmpint (HEDDLE_OP_CONV2D, ==, 66);
  g_assert_cmpuint (G_N_ELEMENTS (codes), >=, 58);
  g_assert_cmpint (HEDDLE_OP_SCALER_UPDATE, ==, 113);
  g_assert_cmpint (HEDDLE_EVENT_MESSAGE, ==, 7);
  g_assert_cmpint (HEDDLE_OPTION_VALUE, ==, 8);
  g_assert_cmpint (HEDDLE_STREAM_USER, ==, 6);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/abi/layout", test_layout);
  g_test_add_func ("/abi/head", test_head);
  g_test_add_func ("/abi/numbers", test_numbers);
  return g_test_run ();
}
