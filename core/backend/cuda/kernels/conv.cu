/* cuda/kernels/conv.cu: convolutions by their definition: every element of the result gathers its products, so that sums have one order.
 * What cuDNN replaces where it is used. */
#include "backend/cuda/kernels/own.cuh"

/* y[n,o,i,j] = sum x[n,c,i s - p + k d, ...] w[o,c,k,l] + bias[o] */
template <class T> static __device__ void
conv_forward (const HkConv &a)
{
  int per_group = a.O / a.groups, channels = a.C / a.groups, stretch = max (16 / (a.P * a.Q), 1);
  int64_t total = (int64_t) a.N * a.O * a.I * a.J;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      int j = (int) (e % a.J), i = (int) (e / a.J % a.I), o = (int) (e / ((int64_t) a.J * a.I) % a.O), n = (int) (e / ((int64_t) a.J * a.I * a.O)), first = o / per_group * channels;
      float sum = a.bias ? ld<T> (a.bias, o) : 0.0f;
      float part = 0;                         /* sums of sums round less than one long sum */
      for (int c = 0; c < channels; c++)
        {
          for (int p = 0; p < a.P; p++)
            for (int q = 0; q < a.Q; q++)
              {
                int r = i * a.stride[0] - a.padding[0] + p * a.dilation[0], s = j * a.stride[1] - a.padding[1] + q * a.dilation[1];
                if (r >= 0 && r < a.H && s >= 0 && s < a.W)
                  part += ld<T> (a.x, n * a.xs[0] + (first + c) * a.xs[1] + r * a.xs[2] + s * a.xs[3]) * ld<T> (a.w, o * a.ws[0] + c * a.ws[1] + p * a.ws[2] + q * a.ws[3]);
              }
          if ((c + 1) % stretch == 0 || c + 1 == channels)
            {
              sum += part;
              part = 0;
            }
        }
      st<T> (a.out, n * a.ys[0] + o * a.ys[1] + i * a.ys[2] + j * a.ys[3], sum);
    }
}
KERNEL (conv_forward, HkConv)

/* dx[n,c,r,s]: the outputs (i, j) whose window covers (r, s), by kernel position */
template <class T> static __device__ void
conv_grad_input (const HkConv &a)
{
  int per_group = a.O / a.groups, channels = a.C / a.groups;
  int64_t total = (int64_t) a.N * a.C * a.H * a.W;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      int s = (int) (e % a.W), r = (int) (e / a.W % a.H), c = (int) (e / ((int64_t) a.W * a.H) % a.C), n = (int) (e / ((int64_t) a.W * a.H * a.C)), first = c / channels * per_group;
      float sum = a.bias ? ld<T> (a.bias, c) : 0.0f;
      for (int p = 0; p < a.P; p++)
        for (int q = 0; q < a.Q; q++)
          {
            int up = r + a.padding[0] - p * a.dilation[0], left = s + a.padding[1] - q * a.dilation[1], i = up / a.stride[0], j = left / a.stride[1];
            bool inside = up >= 0 && left >= 0 && up % a.stride[0] == 0 && left % a.stride[1] == 0 && i < a.I && j < a.J;
            for (int o0 = first; inside && o0 < first + per_group; o0 += 16)
              {
                float part = 0;
                for (int o = o0; o < min (o0 + 16, first + per_group); o++)
                  part += ld<T> (a.y, n * a.ys[0] + o * a.ys[1] + i * a.ys[2] + j * a.ys[3]) * ld<T> (a.w, o * a.ws[0] + c % channels * a.ws[1] + p * a.ws[2] + q * a.ws[3]);
                sum += part;
              }
          }
      st<T> (a.out, n * a.xs[0] + c * a.xs[1] + r * a.xs[2] + s * a.xs[3], sum);
    }
}
KERNEL (conv_grad_input, HkConv)

/* dw[o,c,p,q]: a block for each, its threads share the images and their pixels */
template <class T> static __device__ void
conv_grad_weight (const HkConv &a)
{
  int per_group = a.O / a.groups, channels = a.C / a.groups;
  int64_t total = (int64_t) a.O * channels * a.P * a.Q, pixels = (int64_t) a.N * a.I * a.J;
  for (int64_t e = blockIdx.x; e < total; e += gridDim.x)
    {
      int q = (int) (e % a.Q), p = (int) (e / a.Q % a.P), c = (int) (e / ((int64_t) a.Q * a.P) % channels), o = (int) (e / ((int64_t) a.Q * a.P * channels)), from = o / per_group * channels + c;
      float sum = 0;
      int64_t stretch = 16 * (int64_t) blockDim.x;      /* sums of sums again */
      for (int64_t begin = threadIdx.x; begin < pixels; begin += stretch)
        {
          float part = 0;
          for (int64_t k = begin; k < min (begin + stretch, pixels); k += blockDim.x)
            {
              int j = (int) (k % a.J), i = (int) (k / a.J % a.I), n = (int) (k / ((int64_t) a.J * a.I));
              int r = i * a.stride[0] - a.padding[0] + p * a.dilation[0], s = j * a.stride[1] - a.padding[1] + q * a.dilation[1];
              if (r >= 0 && r < a.H && s >= 0 && s < a.W)
                part += ld<T> (a.x, n * a.xs[0] + from * a.xs[1] + r * a.xs[2] + s * a.xs[3]) * ld<T> (a.y, n * a.ys[0] + o * a.ys[1] + i * a.ys[2] + j * a.ys[3]);
            }
          sum += part;
        }
      sum = block_sum (sum);
      if (threadIdx.x == 0)
        st<T> (a.out, o * a.ws[0] + c * a.ws[1] + p * a.ws[2] + q * a.ws[3], sum);
    }
}
KERNEL (conv_grad_weight, HkConv)
