/*
 * The C twin of the fast paths. Python has all of this, too, and decides whatever is not plain:
 *
 *   map_frames   wire/plain.py and wire/ids.py: a page's numbered frames are made of plain ones
 *   count_alike  wire/frames.py
 *   join_chunks  upstream/receiving.py: the bodies of HTTP chunks, without a callback for each
 *
 * Each function reads one bytes object from front to back and writes a new one. There is no state between calls.
 *
 * Reading is bounded by `end`, which is one past the last byte. Writing is bounded by an invariant, stated at
 * `struct writer`. Sizes of objects are below PY_SSIZE_T_MAX, and sums are checked where they are allocated.
 */

#ifndef Py_GIL_DISABLED /* those builds have no stable ABI before Python 3.15 */
#define Py_LIMITED_API 0x030B0000
#endif
/* Without PY_SSIZE_T_CLEAN, formats with `#` fail before Python 3.13. With it, they would fail there only if the
   extension was compiled with the headers of 3.13, which no longer read the macro. */
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if (defined(__SSE2__) || defined(_M_X64)) && !defined(SSE_BRIDGE_SCALAR)
#include <emmintrin.h>
#define HAVE_SSE2 1
#endif

typedef const unsigned char *reader;

/* Bytes that are read and copied at once. */
#define STRIDE 16

/* ---- bytes ---- */

/*
 * Calls of memcpy and memcmp with sizes that the compiler does not know would be half of what a plain frame costs. These
 * take STRIDE bytes at once.
 */

/* Copies `size` bytes, and up to STRIDE - 1 more: both sides must have room for these. */
static inline void
copy_strides(unsigned char **to, const void *from, Py_ssize_t size)
{
    Py_ssize_t i;

    for (i = 0; i < size; i += STRIDE)
        memcpy(*to + i, (const unsigned char *)from + i, STRIDE);
    *to += size;
}

/* Whether both have the same first `size` bytes. */
static inline int
is_same(reader one, reader other, Py_ssize_t size)
{
#ifdef HAVE_SSE2
    Py_ssize_t i;

    if (size >= STRIDE) {
        for (i = 0;; i = i + STRIDE < size - STRIDE ? i + STRIDE : size - STRIDE) { /* the last stride may overlap */
            __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(one + i)),
                                           _mm_loadu_si128((const __m128i *)(const void *)(other + i)));

            if (_mm_movemask_epi8(equal) != 0xFFFF)
                return 0;
            if (i == size - STRIDE)
                return 1;
        }
    }
#endif
    return memcmp(one, other, (size_t)size) == 0;
}

/* ---- arguments and results ---- */

/* A bytes object, and where in it to begin. */
struct input {
    reader begin, at, end;
};

/* Reads the first two arguments of `expected`. Returns -1 with an exception. */
static int
read_input(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t expected, struct input *input)
{
    char *data;
    Py_ssize_t size, start;

    if (nargs != expected) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return -1;
    }
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return -1;
    start = PyLong_AsSsize_t(args[1]);
    if (start == -1 && PyErr_Occurred())
        return -1;
    if (start < 0 || start > size) {
        PyErr_SetString(PyExc_ValueError, "start is out of range");
        return -1;
    }
    input->begin = (reader)data;
    input->at = input->begin + start;
    input->end = input->begin + size;
    return 0;
}

/* Three results. Takes the reference to `object`, which may be NULL after an error. */
static PyObject *
three(PyObject *object, Py_ssize_t second, Py_ssize_t third)
{
    PyObject *numbers[2], *results = NULL;

    /* Py_BuildValue reads a format each time. */
    numbers[0] = PyLong_FromSsize_t(second);
    numbers[1] = PyLong_FromSsize_t(third);
    if (object != NULL && numbers[0] != NULL && numbers[1] != NULL)
        results = PyTuple_Pack(3, object, numbers[0], numbers[1]);
    Py_XDECREF(object);
    Py_XDECREF(numbers[0]);
    Py_XDECREF(numbers[1]);
    return results;
}

/* ---- texts ---- */

/*
 * Whether a byte may stand in a text without a closer look: printable ASCII but quotes and backslashes.
 */
static inline int
is_ordinary(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

#ifdef HAVE_SSE2
/* Copies a stride. Returns which of its bytes are not ordinary, as bits. */
static inline unsigned int
copy_stride(reader at, unsigned char *to)
{
    const __m128i space = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
    /* Compared as signed numbers, bytes from 0x80 on are below 0x20, too. */
    __m128i other = _mm_or_si128(_mm_cmplt_epi8(bytes, space),
                                 _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));

    _mm_storeu_si128((__m128i *)(void *)to, bytes);
    return (unsigned int)_mm_movemask_epi8(other);
}

/* Where the lowest bit stands that is set. One is. */
static inline int
lowest_bit(unsigned int bits)
{
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int place = 0;

    while ((bits >> place & 1) == 0)
        place++;
    return place;
#endif
}
#else
/* Eight bytes as a number: the same byte in each place, and whether one of them is below n (128 at most). */
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))
#define HAS_BELOW(bytes, n) ((((bytes) - EACH(n)) & ~(bytes) & EACH(0x80)) != 0)
#endif

static inline int
is_hex(unsigned char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

/*
 * The length of an escape that may stay as it is; 0 for one that may not, or is none. Line ends may not: \n, \u000a
 * and \u000d. A carriage return may only be written \r.
 */
static inline int
escape_length(reader at, reader end)
{
    if (end - at < 2)
        return 0;
    switch (at[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'r': case 't':
        return 2;
    case 'u':
        break;
    default:
        return 0;
    }
    if (end - at < 6 || !is_hex(at[2]) || !is_hex(at[3]) || !is_hex(at[4]) || !is_hex(at[5]))
        return 0;
    if (at[2] == '0' && at[3] == '0' && at[4] == '0') {
        unsigned char last = at[5] | 0x20;
        if (last == 'a' || last == 'd')
            return 0;
    }
    return 6;
}

/*
 * The length of a character of two to four bytes; 0 if it is no UTF-8, as bytes.decode() sees it: overlong forms,
 * surrogates and all above U+10FFFF are none.
 */
static inline int
character_length(reader at, reader end)
{
    unsigned char low = 0x80, high = 0xBF; /* of the second byte */
    int length, i;

    if (*at < 0xC2 || *at > 0xF4)
        return 0;
    length = *at < 0xE0 ? 2 : *at < 0xF0 ? 3 : 4;
    if (end - at < length)
        return 0;
    if (*at == 0xE0)
        low = 0xA0;
    else if (*at == 0xED)
        high = 0x9F;
    else if (*at == 0xF0)
        low = 0x90;
    else if (*at == 0xF4)
        high = 0x8F;
    if (at[1] < low || at[1] > high)
        return 0;
    for (i = 2; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* The length of what begins with a byte that is not ordinary, and may stay as it is; 0 if it may not. */
static inline int
special_length(reader at, reader end)
{
    return *at == '\\' ? escape_length(at, end) : *at >= 0x80 ? character_length(at, end) : 0;
}

/*
 * Copies a text up to its quote, and returns where that stands; NULL if the text is not plain or has no end. It may
 * write STRIDE bytes more than it copies.
 */
static inline reader
copy_text(reader at, reader end, unsigned char **to)
{
    unsigned char *out = *to;
    int length;

#ifdef HAVE_SSE2
    while (end - at >= STRIDE) {
        unsigned int others = copy_stride(at, out);
        int next = STRIDE;

        while (others != 0) {
            int place = lowest_bit(others);

            if (at[place] == '"') {
                *to = out + place;
                return at + place;
            }
            length = special_length(at + place, end);
            if (length == 0)
                return NULL;
            if (place + length > STRIDE) { /* the next stride has all of it */
                next = place;
                break;
            }
            others &= ~0u << (place + length);
        }
        at += next;
        out += next;
    }
#endif
    for (;;) {
#ifndef HAVE_SSE2
        uint64_t bytes;

        while (end - at >= (Py_ssize_t)sizeof(bytes)) {
            memcpy(&bytes, at, sizeof(bytes));
            if (HAS_BELOW(bytes, 0x20) || HAS_BELOW(bytes ^ EACH('"'), 1) || HAS_BELOW(bytes ^ EACH('\\'), 1) ||
                (bytes & EACH(0x80)) != 0)
                break;
            memcpy(out, &bytes, sizeof(bytes));
            at += sizeof(bytes);
            out += sizeof(bytes);
        }
#endif
        while (at < end && is_ordinary(*at))
            *out++ = *at++;
        if (at == end)
            return NULL;
        if (*at == '"') {
            *to = out;
            return at;
        }
        length = special_length(at, end);
        if (length == 0)
            return NULL;
        while (length-- > 0)
            *out++ = *at++;
    }
}

/* ---- numbers ---- */

/* Digits of the largest number: 10^18, and as many as there are frames in memory. */
#define MAX_DIGITS 20
#define MAX_FIRST 1000000000000000000ULL

/* A decimal number that is counted up as text. It stands at the end of `digits`; a line feed follows. */
struct number {
    char digits[MAX_DIGITS + STRIDE];
    int start;
};

static void
number_set(struct number *number, unsigned long long value)
{
    memset(number->digits, '\n', sizeof(number->digits));
    number->start = MAX_DIGITS;
    do {
        number->digits[--number->start] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
}

static inline void
number_increment(struct number *number)
{
    int i = MAX_DIGITS - 1;

    while (i >= number->start && number->digits[i] == '9')
        number->digits[i--] = '0';
    if (i >= number->start)
        number->digits[i]++;
    else
        number->digits[--number->start] = '1';
}

/* ---- frames ---- */

/* Bytes of a head, or of an id before its number. */
#define MAX_PART 112

/* A part of each frame. `copy_strides` takes it. */
struct part {
    unsigned char bytes[MAX_PART + STRIDE];
    Py_ssize_t size;
};

/* How the upstream begins a plain frame, and how the page's frame is to begin. */
struct head {
    reader from;
    Py_ssize_t from_size;
    struct part to;
};

/* One for each stream. */
#define MAX_HEADS 4
/* Bytes that a result may grow by without looking for more memory. */
#define SPARE 1024

/* Bytes that a frame may need beside its own: an id line, a head, and what is copied too much. */
#define OVERHEAD (2 * MAX_PART + MAX_DIGITS + 1 + STRIDE)

/*
 * The result while it grows, in memory of its own: the stable ABI has no bytes that change their size. Before each
 * frame, there is room for all of the input that is left, and for OVERHEAD bytes.
 */
struct writer {
    unsigned char *begin, *at, *end;
};

/* Keeps the invariant, with `left` bytes of input to come. Returns -1 with an exception. */
static int
writer_reserve(struct writer *writer, Py_ssize_t left)
{
    Py_ssize_t used = writer->at - writer->begin;
    unsigned char *begin;

    if (writer->end - writer->at >= left + OVERHEAD)
        return 0;
    /* Most frames grow by a third. Where they grow by more, this happens a few times. */
    if (left > (PY_SSIZE_T_MAX - used) / 2 - OVERHEAD - SPARE) {
        PyErr_NoMemory();
        return -1;
    }
    begin = PyMem_Realloc(writer->begin, (size_t)(used + left + left / 2 + OVERHEAD + SPARE));
    if (begin == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    writer->begin = begin;
    writer->at = begin + used;
    writer->end = writer->at + left + left / 2 + OVERHEAD + SPARE;
    return 0;
}

static inline void
write_bytes(unsigned char **to, const void *from, size_t size)
{
    memcpy(*to, from, size);
    *to += size;
}

/* Reads a part. Returns -1 with an exception. */
static int
read_part(PyObject *object, struct part *part)
{
    char *bytes;

    if (PyBytes_AsStringAndSize(object, &bytes, &part->size) < 0)
        return -1;
    if (part->size > MAX_PART) {
        PyErr_SetString(PyExc_ValueError, "a head or the prefix is too long");
        return -1;
    }
    memcpy(part->bytes, bytes, (size_t)part->size);
    memset(part->bytes + part->size, 0, STRIDE);
    return 0;
}

/* Reads the mapping of heads. Returns how many there are, or -1 with an exception. */
static int
read_heads(PyObject *mapping, struct head heads[MAX_HEADS])
{
    PyObject *from, *to;
    Py_ssize_t position = 0;
    char *bytes;
    int count = 0;

    if (!PyDict_Check(mapping)) {
        PyErr_SetString(PyExc_TypeError, "heads must be a dict");
        return -1;
    }
    while (PyDict_Next(mapping, &position, &from, &to)) {
        if (count == MAX_HEADS) {
            PyErr_SetString(PyExc_ValueError, "too many heads");
            return -1;
        }
        if (PyBytes_AsStringAndSize(from, &bytes, &heads[count].from_size) < 0 || read_part(to, &heads[count].to) < 0)
            return -1;
        heads[count].from = (reader)bytes;
        count++;
    }
    return count;
}

/* The head of the frame at `at`, NULL if it has none of them. It is looked for behind `last`, the one before. */
static inline const struct head *
find_head(reader at, reader end, const struct head *heads, int count, const struct head *last)
{
    int i;

    if (count > 0 && end - at >= last->from_size && is_same(at, last->from, last->from_size))
        return last;
    for (i = 0; i < count; i++)
        if (end - at >= heads[i].from_size && is_same(at, heads[i].from, heads[i].from_size))
            return &heads[i];
    return NULL;
}

static const char TAIL[4] = {'"', '}', '\n', '\n'};

/*
 * Maps one frame from `at` on. Returns where the next one begins, or NULL if this one is something else; then
 * `to` is of no use.
 */
static inline reader
map_frame(reader at, reader end, const struct head *head, const struct part *prefix, const struct number *number,
          unsigned char **to)
{
    if (prefix != NULL) {
        copy_strides(to, prefix->bytes, prefix->size);
        copy_strides(to, number->digits + number->start, MAX_DIGITS + 1 - number->start);
    }
    copy_strides(to, head->to.bytes, head->to.size);
    at = copy_text(at + head->from_size, end, to);
    if (at == NULL || end - at < (Py_ssize_t)sizeof(TAIL) || memcmp(at, TAIL, sizeof(TAIL)) != 0)
        return NULL;
    write_bytes(to, TAIL, sizeof(TAIL));
    return at + sizeof(TAIL);
}

PyDoc_STRVAR(map_frames_doc, "map_frames(frames, start, heads, prefix, first, before)\n--\n\n"
                             "Maps and numbers plain frames, up to the first that is something else.");

static PyObject *
map_frames(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct input input;
    struct head heads[MAX_HEADS];
    const struct head *head = heads;
    struct part prefix;
    struct number number;
    struct writer writer = {NULL, NULL, NULL};
    PyObject *mapped = NULL;
    reader at, end;
    Py_ssize_t before_size, count = 0;
    unsigned long long first;
    char *before;
    int head_count;

    (void)module;
    if (read_input(args, nargs, 6, &input) < 0)
        return NULL;
    head_count = read_heads(args[2], heads);
    if (head_count < 0)
        return NULL;
    if (args[3] != Py_None && read_part(args[3], &prefix) < 0)
        return NULL;
    first = PyLong_AsUnsignedLongLong(args[4]);
    if (first == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (first > MAX_FIRST) {
        PyErr_SetString(PyExc_ValueError, "first is out of range");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[5], &before, &before_size) < 0)
        return NULL;
    if (before_size > PY_SSIZE_T_MAX - (input.end - input.begin)) {
        PyErr_NoMemory();
        return NULL;
    }

    number_set(&number, first);
    at = input.at;
    end = input.end;
    if (before_size > 0) {
        if (writer_reserve(&writer, before_size + (end - at)) < 0)
            return NULL;
        write_bytes(&writer.at, before, (size_t)before_size);
    }
    for (;;) {
        unsigned char *to;
        reader next;

        while (at < end && *at == '\n') /* blank lines between frames */
            at++;
        head = find_head(at, end, heads, head_count, head);
        if (head == NULL)
            break;
        if (writer_reserve(&writer, end - at) < 0)
            goto done;
        to = writer.at;
        next = map_frame(at, end, head, args[3] == Py_None ? NULL : &prefix, &number, &to);
        if (next == NULL)
            break;
        writer.at = to;
        at = next;
        number_increment(&number);
        count++;
    }
    mapped = three(PyBytes_FromStringAndSize((char *)writer.begin, writer.at - writer.begin), count,
                   at - input.begin);
done:
    PyMem_Free(writer.begin);
    return mapped;
}

/* ---- counting ---- */

PyDoc_STRVAR(count_alike_doc, "count_alike(frames)\n--\n\n"
                              "How many frames there are, if all begin as the first one does; otherwise 0.");

static PyObject *
count_alike(PyObject *module, PyObject *frames)
{
    char *data;
    Py_ssize_t size, head_size = 0, head_lines = 0, lines = 0, count = 1;
    reader begin, at, end, line;

    (void)module;
    if (PyBytes_AsStringAndSize(frames, &data, &size) < 0)
        return NULL;
    begin = (reader)data;
    end = begin + size;

    /* The head: the first frame, up to the colon of its last line. */
    line = begin;
    for (at = begin; at < end && !(*at == '\n' && (at + 1 == end || at[1] == '\n')); at++) {
        if (*at == '\n') {
            line = at + 1;
            head_lines++;
        }
    }
    line = memchr(line, ':', (size_t)(at - line));
    if (line == NULL)
        return PyLong_FromSsize_t(0);
    head_size = line + 1 - begin;

    /* Every line feed, and after two of them the head. */
    for (at = begin; at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) {
        lines++;
        if (end - at >= 2 + head_size && at[1] == '\n' && memcmp(at + 2, begin, (size_t)head_size) == 0)
            count++;
    }
    return PyLong_FromSsize_t(lines == count * (head_lines + 2) ? count : 0);
}

/* ---- chunks ---- */

/* Hexadecimal digits of a chunk's size. Larger ones are for the parser. */
#define MAX_SIZE_DIGITS 7

/* Reads `<hexadecimal digits>CRLF`. Returns what follows; NULL for anything else, also for the size 0. */
static reader
read_size(reader at, reader end, Py_ssize_t *size)
{
    int digits = 0;

    *size = 0;
    for (; at < end && digits < MAX_SIZE_DIGITS && is_hex(*at); at++, digits++)
        *size = *size * 16 + (*at <= '9' ? *at - '0' : (*at | 0x20) - 'a' + 10);
    return *size > 0 && end - at >= 2 && at[0] == '\r' && at[1] == '\n' ? at + 2 : NULL;
}

/* A run of whole chunks. */
struct chunks {
    /* Bytes of their bodies. */
    Py_ssize_t size;
    /* Where they end. */
    reader stop;
    /* Bytes that the chunk behind them lacks; 0 if it is whole, or something else stands there. */
    Py_ssize_t missing;
};

/* Measures chunks, and copies their bodies unless `to` is NULL. */
static struct chunks
read_chunks(reader at, reader end, unsigned char *to)
{
    struct chunks chunks = {0, at, 0};
    Py_ssize_t size;
    reader body;

    while ((body = read_size(chunks.stop, end, &size)) != NULL) {
        if (end - body < size + 2) {
            chunks.missing = size + 2 - (end - body);
            break;
        }
        if (body[size] != '\r' || body[size + 1] != '\n')
            break;
        if (to != NULL)
            write_bytes(&to, body, (size_t)size);
        chunks.size += size;
        chunks.stop = body + size + 2;
    }
    return chunks;
}

PyDoc_STRVAR(join_chunks_doc, "join_chunks(data, start)\n--\n\n"
                              "The bodies of whole HTTP chunks, and where the first begins that is something else.");

static PyObject *
join_chunks(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct input input;
    struct chunks chunks;
    PyObject *body;

    (void)module;
    if (read_input(args, nargs, 2, &input) < 0)
        return NULL;
    chunks = read_chunks(input.at, input.end, NULL);
    body = PyBytes_FromStringAndSize(NULL, chunks.size);
    if (body == NULL)
        return NULL;
    if (chunks.size > 0) /* the empty bytes are shared */
        (void)read_chunks(input.at, chunks.stop, (unsigned char *)PyBytes_AsString(body));
    return three(body, chunks.stop - input.begin, chunks.missing);
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"map_frames", (PyCFunction)(void (*)(void))map_frames, METH_FASTCALL, map_frames_doc},
    {"count_alike", count_alike, METH_O, count_alike_doc},
    {"join_chunks", (PyCFunction)(void (*)(void))join_chunks, METH_FASTCALL, join_chunks_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_speedups",
    .m_doc = "The C twin of the fast paths: see speedups.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
