"""Notification: who is told what. Facts are relayed to it; `perform` sends what leaves the bank."""

from __future__ import annotations

from agents.transact import Service
from domain.notification import NOTIFICATION, SendNotification
from domain.notification_delivery import DeliveryAnswered, RedriveNotification
from domain.notification_recipients import RemoveEndpoint, RotateSecret, SetEndpoint, SetPreferences
from domain.notification_templates import SaveTemplate

SERVICE = Service(
    decider=NOTIFICATION,
    command_keys={
        SendNotification: lambda command: command.user_id,
        RedriveNotification: lambda command: command.user_id,
        SetPreferences: lambda command: command.user_id,
        SetEndpoint: lambda command: command.user_id,
        RotateSecret: lambda command: command.user_id,
        RemoveEndpoint: lambda command: command.user_id,
        SaveTemplate: lambda command: command.name,
    },
    results=(DeliveryAnswered,),
)
