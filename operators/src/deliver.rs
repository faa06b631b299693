//! `deliver`: faces to the object store: crops, thumbnail, quality.
//!
//! Promise: when a delivery comes out, everything that the results will say exists; its pixels are taken down either way.

use std::sync::Arc;

use bytes::Bytes;
use faceflow_core::bridge::{Bridge, Cross, Limits, blocking};
use faceflow_core::detector::{Answer, Detection, Face, Picture};
use faceflow_core::layout::{crop_key, thumb_key};
use faceflow_core::record::{Delivered, Frame};
use faceflow_core::{Class, Fault, Flow, Lost};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::OkErr;
use timely::dataflow::operators::vec::Map;

use crate::darkroom::Darkroom;
use crate::keep::Shelf;
use crate::pixels::{self, DeliverSettings};

/// Delivers faces.
pub trait Deliver<'s> {
    /// Puts crops and thumbnail on `shelf`.
    fn deliver(
        self,
        shelf: Shelf,
        settings: DeliverSettings,
        darkroom: Arc<Darkroom>,
        bridge: &Bridge,
    ) -> (Flow<'s, Delivered>, Flow<'s, Lost<Frame>>);
}

impl<'s> Deliver<'s> for Flow<'s, Delivered> {
    fn deliver(
        self,
        shelf: Shelf,
        settings: DeliverSettings,
        darkroom: Arc<Darkroom>,
        bridge: &Bridge,
    ) -> (Flow<'s, Delivered>, Flow<'s, Lost<Frame>>) {
        let (room, settings) = (Arc::clone(&darkroom), Arc::new(settings));
        let job = move |delivered: Delivered| {
            let picture = delivered.frame.ticket.and_then(|ticket| room.look(ticket));
            let (shelf, settings) = (shelf.clone(), Arc::clone(&settings));
            async move {
                let gone =
                    || Fault::transient(Class::Panic, "pixels_missing", "the frame's pixels were taken down too early");
                let picture = picture.ok_or_else(gone)?;
                let (delivered, outputs) = {
                    let tenant = Arc::clone(&shelf.tenant);
                    blocking(move || outputs(delivered, &picture, &tenant, &settings)).await?
                };
                for (key, body) in outputs {
                    shelf.store.put(key, body).await?;
                }
                Ok(delivered)
            }
        };
        let crossed = self.cross(Pipeline, "deliver", bridge, (Limits::finishing(64), |_| 0, job));
        let clear = move |mut frame: Frame| {
            darkroom.clear(frame.ticket.take());
            frame
        };
        let cleared = crossed.map(move |answer| match answer {
            Ok(Delivered { frame, detection }) => Ok(Delivered { frame: clear(frame), detection }),
            Err(Lost { record, fault }) => Err(Lost { record: clear(record.frame), fault }),
        });
        cleared.ok_err(|answer| answer)
    }
}

type Outputs = Vec<(String, Bytes)>;

/// Measures and cuts out every face.
fn outputs(
    delivered: Delivered,
    picture: &Picture,
    tenant: &str,
    settings: &DeliverSettings,
) -> Result<(Delivered, Outputs), Fault> {
    let Delivered { frame, detection } = delivered;
    let (id, size, engine) = (detection.picture(), detection.size(), detection.engine().clone());
    let measure = |face: &Face| Face { quality: pixels::quality(picture, face), ..face.clone() };
    let faces: Vec<Face> = detection.faces().iter().map(measure).collect();
    let mut outputs = Vec::with_capacity(faces.len() + 1);
    for (n, face) in faces.iter().enumerate() {
        outputs.push((crop_key(tenant, id, n), pixels::crop(picture, face.bbox, settings)?.into()));
    }
    if settings.thumb_px > 0 {
        outputs.push((thumb_key(tenant, id), pixels::thumbnail(picture, settings)?.into()));
    }
    let answer = Answer { faces, scale: detection.scale(), degraded: detection.degraded() };
    Ok((Delivered { frame, detection: Detection::new(id, size, answer, engine) }, outputs))
}
