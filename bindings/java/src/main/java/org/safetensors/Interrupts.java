// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Sees interrupts of threads that are inside a native load, where nothing else can: one daemon thread looks every 20 ms
 * while there are loads, and waits for one where there have been none for a while.
 */
final class Interrupts {
    private static final long EVERY = 20;
    private static final int PATIENCE = 100;

    private static final Set<LoadBridge> LOADS = ConcurrentHashMap.newKeySet();
    private static volatile Thread watcher;
    private static volatile boolean asleep;

    private Interrupts() {}

    static void watch(LoadBridge load) {
        LOADS.add(load);
        if (watcher == null || asleep) {
            wake();
        }
    }

    static void forget(LoadBridge load) {
        LOADS.remove(load);
    }

    private static synchronized void wake() {
        if (watcher == null) {
            watcher = new Thread(null, Interrupts::look, "safetensors-interrupts", 0, false);
            watcher.setDaemon(true);
            watcher.setContextClassLoader(null); // which it would keep from being unloaded
            watcher.start();
        }
        asleep = false;
        Interrupts.class.notifyAll();
    }

    private static void look() {
        int idle = 0;
        while (true) {
            try {
                Thread.sleep(EVERY);
                idle = LOADS.isEmpty() ? idle + 1 : 0;
                LOADS.forEach(LoadBridge::cancelIfInterrupted);
                if (idle > PATIENCE) {
                    sleep();
                }
            } catch (InterruptedException e) {
                // Nobody's business here.
            }
        }
    }

    private static synchronized void sleep() throws InterruptedException {
        asleep = true;
        // Whoever came in between has seen that nobody sleeps.
        while (asleep && LOADS.isEmpty()) {
            Interrupts.class.wait();
        }
        asleep = false;
    }
}
