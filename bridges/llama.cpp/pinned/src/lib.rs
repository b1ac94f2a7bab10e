// SPDX-License-Identifier: Apache-2.0
//! Nothing: this package only pins a version.
