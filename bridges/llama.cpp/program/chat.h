// SPDX-License-Identifier: Apache-2.0
// What people see: a conversation, a text that goes on, a picture of how alike sentences are.
#pragma once

#include "session.h"

void chat(Session &session, const Arguments &arguments);
void continue_prompt(Session &session, const Arguments &arguments);
void compare(Session &session, const Arguments &arguments);
