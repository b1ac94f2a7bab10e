// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Supplier;

/**
 * One opened set of named tensors: a single {@code .safetensors} file, a sharded model with its
 * {@code .safetensors.index.json}, or a folder that holds either. Everything that a header says has been checked when
 * {@code open} returns.
 *
 * <pre>{@code
 * try (Checkpoint model = Checkpoint.open(Path.of("model.safetensors"))) {
 *     FloatBuffer weight = model.get("weight").floatBuffer();
 *     ...
 * }
 * }</pre>
 *
 * <p><b>Threads.</b> A checkpoint does not change: any number of threads may use one at the same time.
 *
 * <p><b>Closing.</b> {@link #close()} lets no new call in, waits for those under way, and gives up this object's share
 * of the files, mappings and memory. A view ({@link Tensor#buffer()} and its like) has a share of its own: it stays
 * valid after closing, and what it shows goes when the last view is garbage collected. So no view can ever dangle; and
 * to have the mapping gone, drop the views. A checkpoint that is never closed is closed when it and its tensors
 * are garbage collected.
 *
 * <p><b>Native memory.</b> The mapping takes address space and page cache, not heap. Beside it native code holds about
 * twice the bytes of the headers, and of shards that are read and not mapped every tensor of which there was a view.
 * The Java heap holds names, shapes and places of tensors in one block: 44 bytes each beside name and shape. A
 * {@link Tensor} is made when it is asked for, and kept by whoever asked.
 */
public final class Checkpoint implements AutoCloseable {
    /** A virtual thread that reads as much does it on a platform thread. */
    private static final long MUCH = 1 << 20;

    /** So many names are worth a map of their own. */
    private static final int FEW = 4096;

    private final Handle handle;
    private final Callbacks failures;
    private final Ownership ownership;
    private final Records records;
    private final Cleaner.Cleanable cleanable;
    private volatile Map<String, Tensor> byName;

    /** By now looked up by name; need not be exact. */
    private int lookups;

    private Checkpoint(long pointer, Callbacks failures, Memory memory) {
        this.failures = failures;
        Ownership owned = new Ownership(pointer, memory);
        ownership = owned;
        handle = new Handle("checkpoint", pointer, () -> {
            failures.closeSources();
            owned.close();
        });
        try {
            byte[] block = Native.records(pointer);
            records = new Records(block, this);
            owned.holds(records.shards(), block.length);
            cleanable = Memory.CLEANER.register(this, handle::closeLater);
        } catch (Throwable thrown) {
            handle.closeLater();
            throw thrown;
        }
    }

    /**
     * Opens a file, an index or a folder with all defaults.
     *
     * @param path a {@code .safetensors} file, a {@code .safetensors.index.json}, or a folder
     * @return the checkpoint, to be closed
     * @throws SafetensorsException with {@link Status#IO} where it can't be reached, or the rule that a file breaks
     */
    public static Checkpoint open(Path path) {
        return open(path, new OpenOptions());
    }

    /**
     * Opens a file, an index or a folder.
     *
     * @param path a {@code .safetensors} file, a {@code .safetensors.index.json}, or a folder
     * @param options how
     * @return the checkpoint, to be closed
     * @throws SafetensorsException with {@link Status#IO} where it can't be reached, or the rule that a file breaks
     */
    public static Checkpoint open(Path path, OpenOptions options) {
        byte[] bytes = Text.path(path);
        long[] packed = options.packed();
        return Scarce.retrying(() -> new Checkpoint(Native.open(bytes, packed), new Callbacks(), null));
    }

    /**
     * Opens one file's bytes that are in memory already, with all defaults.
     *
     * @param file as {@link #open(ByteBuffer, OpenOptions)}
     * @return the checkpoint, to be closed
     */
    public static Checkpoint open(ByteBuffer file) {
        return open(file, new OpenOptions());
    }

    /**
     * Opens one file's bytes that are in memory already.
     *
     * @param file the bytes between its position and its limit; if it is direct, views lead into it, and it must not
     *     change while there are any; if not, its bytes are copied, and the copy goes at closing
     *     where there are no views
     * @param options how
     * @return the checkpoint, to be closed
     * @throws SafetensorsException with the rule that the file breaks
     */
    public static Checkpoint open(ByteBuffer file, OpenOptions options) {
        long[] packed = options.packed();
        Scarce.makeRoom();
        Memory memory = Memory.readableUntilFreed(file);
        long pointer;
        try {
            pointer = Native.openMemory(memory.address(), memory.size(), packed);
        } catch (Throwable thrown) {
            memory.free();
            throw thrown;
        }
        return new Checkpoint(pointer, new Callbacks(), memory);
    }

    /**
     * Opens one file through a source, with all defaults.
     *
     * @param source its bytes; closed by the library, also if this throws
     * @return the checkpoint, to be closed
     */
    public static Checkpoint open(Source source) {
        return open(source, new OpenOptions());
    }

    /**
     * Opens one file through a source.
     *
     * @param source its bytes; closed by the library, also if this throws
     * @param options how; {@link OpenOptions#access} is of no effect
     * @return the checkpoint, to be closed
     * @throws SafetensorsException with the rule that the file breaks
     */
    public static Checkpoint open(Source source, OpenOptions options) {
        long[] packed = options.packed();
        Callbacks failures = new Callbacks();
        SourceBridge bridge = SourceBridge.of(source, failures);
        return open(failures, () -> Native.openSource(bridge, packed));
    }

    /**
     * Opens a file, or an index with its shards, through sources, with all defaults.
     *
     * @param resolver finds them
     * @param name the file, or the index: a name that ends in {@code .index.json}
     * @return the checkpoint, to be closed
     */
    public static Checkpoint open(Resolver resolver, String name) {
        return open(resolver, name, new OpenOptions());
    }

    /**
     * Opens a file, or an index with its shards, through sources. Shards' headers are read concurrently.
     *
     * @param resolver finds them
     * @param name the file, or the index: a name that ends in {@code .index.json}
     * @param options how; {@link OpenOptions#access} is of no effect
     * @return the checkpoint, to be closed
     * @throws SafetensorsException with the rule that a file breaks
     */
    public static Checkpoint open(Resolver resolver, String name, OpenOptions options) {
        Objects.requireNonNull(resolver, "resolver");
        byte[] bytes = Text.utf8WithoutNul(name, "name");
        Callbacks failures = new Callbacks();
        ResolverBridge bridge = new ResolverBridge(resolver, failures);
        long[] packed = options.packed();
        return open(failures, () -> Native.openResolved(bridge, bytes, packed));
    }

    private static Checkpoint open(Callbacks failures, Supplier<Long> open) {
        Scarce.makeRoom();
        try {
            return new Checkpoint(Platform.call(open, () -> {}), failures, null);
        } catch (SafetensorsException e) {
            failures.closeSources();
            throw failures.cause(e);
        } catch (Throwable thrown) {
            failures.closeSources();
            throw thrown;
        }
    }

    /** {@return all tensors, by shard and offset; unmodifiable} */
    public List<Tensor> tensors() {
        handle.requireOpen();
        return records.tensors();
    }

    /**
     * The tensor of this name, if there is one.
     *
     * @param name its name
     * @return the tensor
     */
    public Optional<Tensor> find(String name) {
        return Optional.ofNullable(lookup(name));
    }

    /**
     * The tensor of this name.
     *
     * @param name its name
     * @return the tensor
     * @throws SafetensorsException with {@link Status#NOT_FOUND} if there is none
     */
    public Tensor get(String name) {
        Tensor tensor = lookup(name);
        if (tensor == null) {
            String text = "no tensor " + Text.quoted(name) + " among the " + records.count() + " there are";
            throw new SafetensorsException(Status.NOT_FOUND, text);
        }
        return tensor;
    }

    /**
     * By the library's own table, or by a map on this side where there are so few names that it stays in the processor's
     * caches: there it takes half the time of a crossing and back. It is made once that many have been asked for that
     * making it has paid. (Names made to collide don't harm a HashMap of Strings.)
     */
    private Tensor lookup(String name) {
        handle.requireOpen();
        Map<String, Tensor> map = byName;
        if (map != null) {
            return map.get(Objects.requireNonNull(name, "name"));
        }
        byte[] bytes = Text.utf8OrNull(Objects.requireNonNull(name, "name"));
        int found = bytes == null ? -1 : use(pointer -> Native.find(pointer, bytes));
        if (records.count() <= FEW && lookups++ > records.count() / 4) {
            map = new HashMap<>(2 * records.count());
            for (Tensor tensor : records.tensors()) {
                map.put(tensor.name(), tensor);
            }
            byName = map;
        }
        return found < 0 ? null : records.tensors().get(found);
    }

    /** {@return all metadata, in the file's order; unmodifiable, and empty where there is none} */
    public Map<String, String> metadata() {
        handle.requireOpen();
        return records.metadata() == null ? Map.of() : records.metadata();
    }

    /** {@return whether there is metadata at all: absent and empty differ in files} */
    public boolean hasMetadata() {
        handle.requireOpen();
        return records.metadata() != null;
    }

    /** {@return the files, by name; unmodifiable} */
    public List<Shard> shards() {
        handle.requireOpen();
        return records.shards();
    }

    /**
     * Loads tensors into memory of the caller's, with all defaults.
     *
     * @param items what goes where
     */
    public void load(List<LoadItem> items) {
        load(items, new LoadOptions());
    }

    /**
     * Loads tensors into memory of the caller's: in file order, in large requests, on several threads. An interrupt of
     * the calling thread cancels it, within the read that is under way, and stays set. After a failure the contents of destinations are unspecified.
     *
     * @param items what goes where
     * @param options how
     * @throws SafetensorsException with {@link Status#CANCELLED}, {@link Status#IO} or another status
     */
    public void load(List<LoadItem> items, LoadOptions options) {
        List<LoadItem> fixed = List.copyOf(items);
        LoadBridge bridge = new LoadBridge(options);
        long[] packed = LoadItem.packed(fixed, this);
        long[] how = options.packed();
        try {
            Interrupts.watch(bridge);
            use(bridge::interrupt, Long.MAX_VALUE, pointer -> {
                Segments.holding(LoadItem.destinations(fixed), () -> Segments.holding(options.buffers(),
                        () -> Native.load(pointer, packed, fixed.size(), how, bridge, bridge.cancelAddress())));
                return null;
            });
        } catch (SafetensorsException e) {
            throw bridge.cause(e);
        } finally {
            Interrupts.forget(bridge);
            Reference.reachabilityFence(fixed);
            Reference.reachabilityFence(bridge);
        }
    }

    /**
     * What a load would do. No I/O.
     *
     * @param items what goes where
     * @param options how
     * @return the plan
     */
    public LoadPlan plan(List<LoadItem> items, LoadOptions options) {
        List<LoadItem> fixed = List.copyOf(items);
        long[] packed = LoadItem.packed(fixed, this);
        long[] how = options.packed();
        long[] plan = use(pointer -> Native.plan(pointer, packed, fixed.size(), how));
        Reference.reachabilityFence(fixed);
        Reference.reachabilityFence(options);
        return new LoadPlan(plan[0], plan[1], plan[2], plan[3], plan[4], (int) plan[5], (int) plan[6]);
    }

    /** Tells the system to read everything ahead; does not wait. */
    public void prefetch() {
        use(pointer -> {
            Native.prefetch(pointer, null);
            return null;
        });
    }

    /**
     * Tells the system to read tensors ahead; does not wait.
     *
     * @param tensors which
     */
    public void prefetch(Collection<Tensor> tensors) {
        int[] numbers = tensors.stream().mapToInt(tensor -> tensor.indexIn(this)).toArray();
        use(pointer -> {
            Native.prefetch(pointer, numbers);
            return null;
        });
    }

    /** {@return whether it has been closed} */
    public boolean isClosed() {
        return handle.isClosed();
    }

    /**
     * Closes it: see above. A second time does nothing.
     *
     * @throws IllegalStateException in a callback while calls use this checkpoint, as they could never end; it stays open
     */
    @Override
    public void close() {
        handle.close();
        cleanable.clean();
        failures.throwClosing();
    }

    /** A native call with the checkpoint's pointer. */
    interface Call<T> {
        T with(long pointer);
    }

    /** Runs a native call as a user of the handle; what a source threw comes out of it. */
    <T> T use(Call<T> call) {
        return use(() -> {}, 0, call);
    }

    /** The same for a call that reads that many bytes. */
    <T> T use(long bytes, Call<T> call) {
        return use(() -> {}, bytes, call);
    }

    /** Virtual threads don't wait inside native code for callbacks, or for much I/O. */
    private <T> T use(Runnable interrupted, long bytes, Call<T> call) {
        long pointer = handle.enter();
        try {
            return bytes >= MUCH || bytes > 0 && failures.hasSources()
                    ? Platform.call(() -> call.with(pointer), interrupted)
                    : call.with(pointer);
        } catch (SafetensorsException e) {
            throw failures.cause(e);
        } finally {
            handle.leave();
            Reference.reachabilityFence(this);
        }
    }

    /** Makes a view of an address, with a share of the native checkpoint to be given up at its end. */
    interface View<T> {
        T of(long address, Runnable share);
    }

    /** A view of a tensor, whose bytes are read first where nothing is mapped. */
    <T> T view(Tensor tensor, View<T> view) {
        boolean mapped = tensor.isMapped();
        if (mapped || tensor.size() == 0) {
            return use(pointer -> view.of(Native.data(pointer, tensor.index()), ownership.share()));
        }
        return Scarce.retrying(() -> use(tensor.size(), pointer -> {
            long address = Native.data(pointer, tensor.index());
            ownership.holds(tensor.index(), tensor.size());
            return view.of(address, ownership.share());
        }));
    }
}
